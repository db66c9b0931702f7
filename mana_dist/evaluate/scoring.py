"""The scoring of a clip: methods upscale its frames, which are compared with the ground truth."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from mana_dist.data.degradation import Degradation, crop_to_multiple, degrade_clip
from mana_dist.errors import UserError
from mana_dist.evaluate import neighbours
from mana_dist.evaluate.methods import Method, Trained
from mana_dist.evaluate.motion import Motion, flow_back
from mana_dist.evaluate.neighbours import Sample, SampledFrame, mean_gain
from mana_dist.evaluate.results import ClipScores, Example, Scores, mean
from mana_dist.evaluate.scored_clips import Clip, LrFrame, inside
from mana_dist.footage.given_lr import GivenLr
from mana_dist.metrics import METRICS, Measure, Metric, PairMeasure, Trail, follow, psnr
from mana_dist.metrics.psnr_ssim import SSIM_SIZE
from mana_dist.model.inference import Frame
from mana_dist.pictures import Region, most_different_regions

DIGEST_BYTES = 16
EXAMPLES_PER_CLIP = 3
RECENT = 32
"""Number of LR frames that are held for methods that read later than others."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the scoring of a clip needs beside the clip.

    Attributes:
        methods: at least one.
        degradation: makes the LR frames that are not given.
        measures: by the metric's name; the columns of metrics without one stay empty.
        border_crop: HR pixels left out along each border before frames are compared.
        device: where methods and metrics with networks run.
        threads: of torch and OpenCV; None: their own defaults. The same for all clips of an evaluation: a sum may
            depend on the number of threads.
        scale: HR side over LR side.
        sampled: names of the clips on which the models' use of neighbours is measured.
    """

    methods: tuple[Method, ...]
    degradation: Degradation
    measures: Mapping[str, Measure | PairMeasure]
    border_crop: int = 0
    device: str = "cpu"
    threads: int | None = None
    scale: int = 4
    sampled: frozenset[str] = frozenset()


class ScoredClip(NamedTuple):
    """Results of a clip: its scores, the parts of it to show (none: dropped), and the number of frames used."""

    scores: ClipScores
    examples: tuple[Example, ...]
    frames: int


class _Truth(NamedTuple):
    """A frame's ground truth, cropped to multiples of the scale, its size before, and the LR frame if given."""

    number: int
    run: int
    hr: Frame
    whole: tuple[int, ...]
    lr: Frame | None


class _Pair(NamedTuple):
    """A frame: its LR frame, the ground truth cropped to multiples of the scale, and its size before that."""

    lr: LrFrame
    hr: Frame
    whole: tuple[int, ...]


class _Compared(NamedTuple):
    """What is compared of a scored frame.

    Attributes:
        lr: its LR frame.
        hr: the ground truth inside the border: one array for all methods, whose features LPIPS keeps.
        outputs: of each method, likewise.
    """

    lr: LrFrame
    hr: Frame
    outputs: Sequence[Frame]

    def of(self, method: int) -> tuple[Frame, Frame]:
        """Return the frame of the method of that position, and the ground truth."""
        return self.outputs[method], self.hr


def score_clip(clip: Clip, settings: Settings, progress: Callable[[], None] = lambda: None) -> ScoredClip:
    """Score all methods on a clip, frame by frame, so that memory does not grow with the clip's length.

    Args:
        clip: the ground truth.
        settings: of the scoring.
        progress: called after each frame.

    Raises:
        UserError: unreadable, HR and LR frames that do not match, or frames smaller than SSIM's window.
    """
    wanted = clip.scored()
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    damage: list[str] = []
    compared = None if clip.lr is None else GivenLr(clip.lr, clip.uri, settings.degradation, settings.scale)
    source = _Source(lambda: _pairs(clip, settings, damage.append, compared))
    outputs = [method.upscale(clip, source.lr(), wanted, settings.device) for method in settings.methods]
    motion = Motion()
    scores: list[list[Scores]] = [[] for _ in settings.methods]
    sample, before = Sample(), deque[Frame](maxlen=neighbours.BEFORE)
    earlier: _Compared | None = None
    examples: list[Example] = []
    notes: tuple[str, ...] = ()
    count, run = 0, 0
    for pair in source.pairs():
        notes = notes or _notes(pair, settings)
        number = pair.lr.number
        motion.add(pair.lr.pixels, follows=pair.lr.run == run)
        if pair.lr.run != run:
            before.clear()
        run = pair.lr.run
        digest.update(pair.hr.tobytes())
        if clip.lr is not None:
            digest.update(pair.lr.pixels.tobytes())
        if number in wanted:
            frames = [
                _next(method.name, output, pair, clip, number)
                for method, output in zip(settings.methods, outputs, strict=True)
            ]
            hr, *insides = (inside(frame, settings.border_crop) for frame in (pair.hr, *frames))
            now = _Compared(pair.lr, hr, insides)
            for collected, scored in zip(scores, _score(now, earlier, settings.measures), strict=True):
                collected.append(scored)
            earlier = now
            if clip.name in settings.sampled:
                psnrs = tuple(collected[-1].psnr_rgb for collected in scores)
                sample.add(SampledFrame(pair.lr.pixels, tuple(before), hr, psnrs))
            examples = _clearest_examples(examples, clip, number, pair, frames)
        before.append(pair.lr.pixels)
        count += 1
        progress()
    if not examples:
        raise UserError(f"{clip.uri}: no frame of it is scored; see --frames and --frame-subset")
    result = ClipScores(
        clip=clip.name,
        dataset=clip.dataset,
        scores=tuple(
            replace(mean(collected), sampled=_use_of_neighbours(position, sample.frames(), settings))
            for position, collected in enumerate(scores)
        ),
        motion=motion.mean,
        notes=(*notes, *(() if compared is None else compared.notes()), *dict.fromkeys(damage)),
        digest=digest.hexdigest(),
    )
    return ScoredClip(result, tuple(examples), count)


class _Source:
    """A clip's frames, decoded once for the scoring and for all methods, each of which reads at its own pace.

    Memory does not grow with the clip's length. Frames that a method reads ahead are held until they are scored, and
    the last few LR frames for methods that read later. A method that is further behind, because its first scored
    frame is late in the clip, decodes the clip for itself.
    """

    def __init__(self, open_: Callable[[], Iterator[_Pair]]) -> None:
        self._open = open_
        self._frames = open_()
        self._ahead: deque[_Pair] = deque()
        self._recent: deque[LrFrame] = deque(maxlen=RECENT)
        self._count = 0

    def pairs(self) -> Iterator[_Pair]:
        """Yield all frames, once."""
        while self._ahead or self._advance():
            yield self._ahead.popleft()

    def lr(self) -> Iterator[LrFrame]:
        """Yield the LR frames, for one more reader."""
        place = 0
        while place >= self._count - len(self._recent):
            if place == self._count and not self._advance():
                return
            yield self._recent[place - self._count]
            place += 1
        for pair in islice(self._open(), place, None):
            yield pair.lr

    def _advance(self) -> bool:
        pair = next(self._frames, None)
        if pair is None:
            return False
        self._ahead.append(pair)
        self._recent.append(pair.lr)
        self._count += 1
        return True


def _pairs(clip: Clip, settings: Settings, damaged: Callable[[str], None], compared: GivenLr | None) -> Iterator[_Pair]:
    """Yield the frames of a clip with LR frames given or made, except those of which either cannot be read."""
    frames = _truth(clip, settings, damaged, compared)
    with_lr: Iterator[tuple[_Truth, Frame]] = ((frame, frame.lr) for frame in frames if frame.lr is not None)
    if clip.lr is None:
        with_lr = degrade_clip(frames, settings.degradation, clip.name, settings.scale)
    for frame, lr in with_lr:
        yield _Pair(LrFrame(frame.number, frame.run, lr), frame.hr, frame.whole)


def _truth(
    clip: Clip, settings: Settings, damaged: Callable[[str], None], compared: GivenLr | None
) -> Iterator[_Truth]:
    given = clip.lr_frames(lambda what: damaged(f"given LR frames: {what}")) if clip.lr is not None else None
    breaks = clip.breaks(damaged)
    number, run, follows = -1, 0, True
    for number, whole in enumerate(clip.frames(damaged)):
        lr = None if given is None else _given(given, clip, number)
        follows = follows and number not in breaks
        if whole is None or (given is not None and lr is None):
            follows = False
            continue
        run, follows = run + (not follows), True
        hr, scale = crop_to_multiple(whole, settings.scale), settings.scale
        _check_size(clip, whole, hr, settings.border_crop)
        if lr is None:
            yield _Truth(number, run, hr, whole.shape, None)
            continue
        if lr.shape[0] * scale != hr.shape[0] or lr.shape[1] * scale != hr.shape[1]:
            raise UserError(
                f"{clip.lr}: LR frames of {_size(lr.shape)} do not match {clip.uri}, whose frames of "
                f"{_size(whole.shape)} need {hr.shape[1] // scale}x{hr.shape[0] // scale}; or use --lr made"
            )
        if compared is not None:
            compared.add(number, hr, lr)
        yield _Truth(number, run, hr, whole.shape, lr)
    if given is not None and list(islice(given, 1)):
        raise UserError(f"{clip.lr}: has more than the {number + 1} frames of {clip.uri}; or use --lr made")


def _given(frames: Iterator[Frame | None], clip: Clip, number: int) -> Frame | None:
    """Return the next LR frame; None if it cannot be read."""
    for frame in frames:
        return frame
    raise UserError(f"{clip.lr}: ends after {number} LR frames, {clip.uri} does not; or use --lr made")


def _next(method: str, output: Iterator[Frame], pair: _Pair, clip: Clip, number: int) -> Frame:
    """Return the method's next frame; one of the whole ground truth's size is cropped like that."""
    frame = next(output, None)
    if frame is None:
        raise UserError(f"{method}: has no frame {number} of {clip.uri}")
    if frame.shape == pair.hr.shape:
        return frame
    if frame.shape == pair.whole:
        height, width = pair.hr.shape[:2]
        return frame[:height, :width]
    raise UserError(
        f"{method}: its frames of {clip.name} are {_size(frame.shape)}, those of {clip.uri} {_size(pair.whole)}; "
        "give it frames of the same size"
    )


def _clearest_examples(
    kept: Sequence[Example], clip: Clip, number: int, pair: _Pair, frames: Sequence[Frame]
) -> list[Example]:
    """Return the clip's examples after one more frame: the parts that differ most, each at a place of its own."""
    # The first method is compared with the last; a single one with the ground truth.
    scale = pair.hr.shape[0] // pair.lr.pixels.shape[0]
    regions = most_different_regions(frames[0], frames[-1] if len(frames) > 1 else pair.hr, scale)
    found: list[Example | Region] = [*kept, *islice(regions, EXAMPLES_PER_CLIP)]
    chosen: list[Example] = []
    for item in sorted(found, key=lambda item: -_region(item).difference):  # of equal ones the earlier frame's
        region = _region(item)
        if len(chosen) == EXAMPLES_PER_CLIP or any(region.overlaps(other.region) for other in chosen):
            continue
        if isinstance(item, Example):
            chosen.append(item)
        elif region.difference or not chosen:
            cut = [region.of(frame).copy() for frame in frames]
            lr, hr = region.of_lr(pair.lr.pixels).copy(), region.of(pair.hr).copy()
            chosen.append(Example(clip.name, number, region, lr, hr, cut))
    return chosen


def _region(item: Example | Region) -> Region:
    return item.region if isinstance(item, Example) else item


def _score(now: _Compared, earlier: _Compared | None, measures: Mapping[str, Measure | PairMeasure]) -> list[Scores]:
    """Return each method's scores of a frame; ``earlier`` is the one that was scored before it, if there is one."""
    of_pairs = any(isinstance(measure, PairMeasure) for measure in measures.values())
    trail = _trail(earlier, now) if of_pairs and earlier is not None else None

    def value(metric: Metric, method: int) -> float | None:
        measure = measures.get(metric.name)
        if measure is None or min(now.hr.shape[:2]) < metric.smallest_side:
            return None
        if not isinstance(measure, PairMeasure):
            return measure(*now.of(method))
        if earlier is None or trail is None:
            return None
        return measure.measure(earlier.of(method), now.of(method), trail)

    methods = range(len(now.outputs))
    return [Scores({name: value(metric, method) for name, metric in METRICS.items()}, frames=1) for method in methods]


def _trail(earlier: _Compared, now: _Compared) -> Trail | None:
    """Follow the motion between two scored frames; None where they are no neighbours, or it cannot be followed."""
    if (earlier.lr.run, earlier.lr.number + 1) != (now.lr.run, now.lr.number):
        return None
    return follow(earlier.hr, now.hr, flow_back(earlier.hr, now.hr))


def _use_of_neighbours(position: int, sample: Sequence[SampledFrame], settings: Settings) -> dict[str, float]:
    """Return the neighbour metrics of the method of that position, by name; none if it sees no neighbours."""
    method = settings.methods[position]
    if not (sample and isinstance(method, Trained) and method.model.sees_neighbours):
        return {}
    pairs = []
    for frame in sample:
        alone = inside(method.upscale_alone(frame.lr, settings.device), settings.border_crop)
        pairs.append((frame.psnr[position], psnr(alone, frame.hr)))
    middle = sample[len(sample) // 2]
    others = middle.before if len(middle.before) == neighbours.BEFORE else ()
    found = {
        neighbours.GAIN.name: mean_gain(pairs),
        neighbours.MATCH_ERROR.name: method.match_error(middle.lr, others, settings.device),
    }
    return {name: value for name, value in found.items() if value is not None}


def _check_size(clip: Clip, whole: Frame, hr: Frame, border: int) -> None:
    if min(hr.shape[:2]) - 2 * border < SSIM_SIZE:
        inside = f" without {border} pixels along each border (--border-crop)" if border else ""
        cut = "" if hr.shape == whole.shape else f", cropped to {_size(hr.shape)},"
        raise UserError(
            f"{clip.uri}: frames of {_size(whole.shape)}{cut}{inside} are smaller than SSIM's {SSIM_SIZE}x{SSIM_SIZE}"
        )


def _notes(pair: _Pair, settings: Settings) -> tuple[str, ...]:
    notes = []
    if pair.hr.shape != pair.whole:
        notes.append(f"cropped from {_size(pair.whole)} to {_size(pair.hr.shape)}")
    smallest = min(pair.hr.shape[:2]) - 2 * settings.border_crop
    notes += [
        f"no {metric.label}: it needs {metric.smallest_side}x{metric.smallest_side}"
        for metric in (METRICS[name] for name in settings.measures)
        if smallest < metric.smallest_side
    ]
    return tuple(notes)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
