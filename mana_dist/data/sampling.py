"""Cutting a stream of frames into training samples: windows of degraded frames with their centre frame."""

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mana_dist.data import frame_quality
from mana_dist.data.config import MIN_LR_SIDE, SampleSettings
from mana_dist.data.degradation import crop_to_multiple, degrade_clip
from mana_dist.data.frame_quality import FrameQuality, detail
from mana_dist.data.resize import imresize
from mana_dist.data.samples import Sample
from mana_dist.video.shots import mark_cuts

Given = tuple[int, NDArray[np.uint8]] | tuple[int, NDArray[np.uint8], NDArray[np.uint8]]
"""A frame's number in the source, its pixels, uint8 (H, W, 3) RGB, and of a pair those of its LR frame."""
Compare = Callable[[int, NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]
"""A function of a frame's number, its HR and its given LR pixels that gives the LR frame that BI makes of it."""

_BLOCK = 8
"""Side of the blocks, LR pixels, whose change decides whether a frame repeats the one before."""


@dataclass(frozen=True)
class Tally:
    """Counts of frames and samples by their fate; tallies add up."""

    frames: int = 0
    duplicates: int = 0  # of those, left out because they repeat the one before
    small: int = 0  # of those, left out because they are smaller than a patch, or than :data:`MIN_LR_SIDE`
    cuts: int = 0  # shot cuts found
    flat: int = 0  # samples (patches, where frames are cut into them) left out for too little detail
    samples: int = 0
    wrong_motion: int = 0  # samples left out because they move too little or too much

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Sampler:
    """Makes the samples of one clip's, or one segment's, frames.

    Frames are shrunk, cropped (top left kept) to multiples of the scale, and degraded once each. A run of frames ends
    at a jump in their numbers, at another size and at a shot cut; inside it, a frame that repeats the one before is
    left out. Every window of T neighbouring frames of a run may give a sample, of a slot of ``stride`` frame numbers
    the first with detail and motion as wanted. T LR frames are held and, for shot cuts looked ahead for, half as many
    HR frames.

    Args:
        settings: the samples' settings.
        downscale: factor by which frames are shrunk (see :func:`imresize`) before they serve as HR.
        compare: of pairs, what is called with each; repeats, shot cuts and motion are looked for in what it gives.

    Attributes:
        tally: counts so far; final once :meth:`samples` has ended.
        qualities: of frames, one of :data:`mana_dist.data.frame_quality.EVERY`, in their order.
    """

    def __init__(self, settings: SampleSettings, downscale: int = 1, compare: Compare | None = None) -> None:
        self._settings, self._downscale, self._compare = settings, downscale, compare
        self.tally = Tally()
        self.qualities: list[FrameQuality] = []

    def samples(
        self,
        frames: Iterable[Given],
        *,
        clip: str = "",
        first: int = 0,
        centres: range | None = None,
        breaks: Container[int] = (),
    ) -> Iterator[Sample]:
        """Stream the samples of ``frames``, in the order of their centres.

        Segments of a clip give together what the whole clip gives, but for repeated frames, and slots, across their
        borders: let each have :data:`mana_dist.video.shots.CUT_MARGIN` frames more than the windows of its centres
        need.

        Args:
            frames: the numbers rising; of a segment, whole blocks of the degradation.
            clip: the clip's name, from which a recipe draws.
            first: number of the first frame used of the clip (not of the segment): slots count from it.
            centres: only these frame numbers may be centres and are counted in :attr:`tally`; None: all. A slot that
                begins before them belongs to the segment before.
            breaks: numbers of frames that do not follow the one before, whatever its number.
        """
        cv2.setNumThreads(1)  # one CPU per clip: parallelism comes from many clips
        half = self._settings.frames_per_sample // 2
        done = -1
        for run in self._full_windows(self._seen(frames, first, centres), clip, centres, breaks):
            slot = (run.centre - first - half) // self._settings.stride
            begin = first + half + slot * self._settings.stride
            if slot == done or (centres is not None and (run.centre not in centres or begin < centres.start)):
                continue
            for sample in self._samples_of(run):
                done = slot
                self.tally += Tally(samples=1)
                yield sample

    def _seen(self, frames: Iterable[Given], first: int, centres: range | None) -> Iterator[Given]:
        """Pass frames on, and look at some of them."""
        for frame in frames:
            if (frame[0] - first) % frame_quality.EVERY == 0 and (centres is None or frame[0] in centres):
                self.qualities.append(frame_quality.measure(frame[1]))
            yield frame

    def _full_windows(
        self, frames: Iterable[Given], clip: str, centres: range | None, breaks: Container[int]
    ) -> Iterator["_Run"]:
        degraded = self._degraded(self._prepared(frames, centres, breaks), clip)
        distinct = self._without_repeats(degraded, centres)
        for _, stretch in itertools.groupby(distinct, key=lambda frame: frame.stretch):
            run = _Run(self._settings.frames_per_sample)
            for frame, is_cut in self._marked(stretch):
                if is_cut:
                    run = _Run(self._settings.frames_per_sample)
                    self._count(Tally(cuts=1), frame.number, centres)
                run.push(frame)
                if run.is_full:
                    yield run

    def _prepared(self, frames: Iterable[Given], centres: range | None, breaks: Container[int]) -> Iterator["_Whole"]:
        stretch, follows = 0, (-1, tuple[int, ...]())
        least = self._settings.scale * max(self._settings.patch, MIN_LR_SIDE)
        for number, pixels, *lr in frames:
            self._count(Tally(frames=1), number, centres)
            hr = self._shrunk(pixels)
            if min(hr.shape[:2]) < least:
                self._count(Tally(small=1), number, centres)
                continue
            if number in breaks or follows != (number, hr.shape):
                stretch += 1
            follows = (number + 1, hr.shape)
            yield _Whole(number, stretch, hr, lr[0] if lr else None)

    def _degraded(self, frames: Iterable["_Whole"], clip: str) -> Iterator["_Frame"]:
        degradation = self._settings.degradation
        if self._compare is not None:
            for frame in frames:
                assert frame.lr is not None
                seen = self._compare(frame.number, frame.hr, frame.lr)
                grey = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)
                yield _Frame(frame.number, frame.run, frame.hr, frame.lr, seen, grey)
            return
        for frame, lr in degrade_clip(frames, degradation, clip, self._settings.scale):
            # Noise and compression would hide repeats, cuts and motion.
            seen = (
                lr
                if degradation.recipe is None
                else cv2.resize(frame.hr, lr.shape[1::-1], interpolation=cv2.INTER_AREA)
            )
            yield _Frame(frame.number, frame.run, frame.hr, lr, seen, cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY))

    def _shrunk(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._downscale > 1:
            whole = crop_to_multiple(pixels, self._downscale)
            pixels = imresize(whole, whole.shape[0] // self._downscale, whole.shape[1] // self._downscale)
        return crop_to_multiple(pixels, self._settings.scale)

    def _without_repeats(self, frames: Iterable["_Frame"], centres: range | None) -> Iterator["_Frame"]:
        kept: _Frame | None = None
        for frame in frames:
            follows = kept is not None and kept.stretch == frame.stretch
            if kept and follows and greatest_change(kept.grey, frame.grey) < self._settings.min_change:
                self._count(Tally(duplicates=1), frame.number, centres)
            else:
                kept = frame
                yield frame

    def _marked(self, frames: Iterable["_Frame"]) -> Iterator[tuple["_Frame", bool]]:
        if self._settings.detect_cuts:
            return mark_cuts(frames, lambda frame: frame.seen)
        return ((frame, False) for frame in frames)

    def _samples_of(self, run: "_Run") -> Iterator[Sample]:
        side, scale = self._settings.patch, self._settings.scale
        lr: NDArray[np.uint8] | None = None
        for top, left, height, width in _patches(run.hr.shape[0] // scale, run.hr.shape[1] // scale, side):
            hr = run.hr[scale * top : scale * (top + height), scale * left : scale * (left + width)]
            if detail(hr) < self._settings.min_detail:
                self.tally += Tally(flat=1)
                continue
            area = (slice(top, top + height), slice(left, left + width))
            flow, most = run.flow(area), self._settings.max_motion
            if flow < self._settings.min_motion or (most is not None and flow > most):
                self.tally += Tally(wrong_motion=1)
                continue
            lr = run.lr() if lr is None else lr
            yield Sample(lr[:, *area], hr, run.centre, flow, top, left)

    def _count(self, what: Tally, number: int, centres: range | None) -> None:
        if centres is None or number in centres:
            self.tally += what


def greatest_change(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Return the greatest mean absolute difference of any 8x8 block, anywhere in two frames of luma; grey levels."""
    height, width = (min(_BLOCK, side) for side in before.shape)
    sums = cv2.boxFilter(cv2.absdiff(before, after), cv2.CV_32F, (width, height), anchor=(0, 0), normalize=False)
    inside = sums[: before.shape[0] - height + 1, : before.shape[1] - width + 1]
    return float(inside.max()) / (height * width)


def optical_flow(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Farneback's dense optical flow between two frames of luma: (H, W, 2), pixels right and down."""
    # OpenCV's usual settings: three pyramid levels follow motion of some tens of pixels.
    flow: NDArray[np.float32] = cv2.calcOpticalFlowFarneback(
        before, after, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )
    return flow


def flow_magnitude(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the length of the :func:`optical_flow` between two frames of luma, at every pixel; pixels."""
    flow = optical_flow(before, after)
    return np.hypot(flow[..., 0], flow[..., 1])


class _Whole(NamedTuple):
    """One frame: its number in the source, the stretch of unbroken numbers it is in, its picture, a given LR frame."""

    number: int
    run: int
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8] | None = None


class _Frame(NamedTuple):
    """The same with its LR frame, and LR pictures of it, in colours and luma, in which to look for what it shows."""

    number: int
    stretch: int
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]
    seen: NDArray[np.uint8]
    grey: NDArray[np.uint8]


class _Run:
    """The newest frames of one shot: up to T LR frames, and the HR frames from their centre on."""

    def __init__(self, frames_per_sample: int) -> None:
        self._half = frames_per_sample // 2
        self._low: deque[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]] = deque(maxlen=frames_per_sample)
        self._hr: deque[NDArray[np.uint8]] = deque(maxlen=self._half + 1)
        self._motion: deque[NDArray[np.float32] | None] = deque(maxlen=frames_per_sample - 1)

    def push(self, frame: _Frame) -> None:
        if self._low:
            self._motion.append(None)
        self._low.append((frame.number, frame.lr, frame.grey))
        self._hr.append(frame.hr)

    @property
    def is_full(self) -> bool:
        return len(self._low) == self._low.maxlen

    @property
    def centre(self) -> int:
        return self._low[self._half][0]

    @property
    def hr(self) -> NDArray[np.uint8]:
        return self._hr[0]

    def lr(self) -> NDArray[np.uint8]:
        return np.stack([lr for _, lr, _ in self._low])

    def flow(self, area: tuple[slice, slice]) -> float:
        """Return the mean flow inside ``area`` between the window's frames; a pair's is computed at most once."""
        means = []
        for index, (before, after) in enumerate(itertools.pairwise(grey for _, _, grey in self._low)):
            motion = self._motion[index]
            if motion is None:
                motion = self._motion[index] = flow_magnitude(before, after)
            means.append(float(np.mean(motion[area])))
        return float(np.mean(means)) if means else 0.0


def _patches(height: int, width: int, side: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (top, left, height, width) of the patches that cover a frame, the last row and column shifted to fit."""
    if side == 0:
        yield 0, 0, height, width
        return
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield min(top, height - side), min(left, width - side), side, side
