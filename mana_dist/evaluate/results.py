"""Results of an evaluation: plain values, which the reports, MLflow and the sweeps read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from mana_dist.evaluate import neighbours
from mana_dist.evaluate.protocol import Protocol
from mana_dist.metrics import METRICS, PSNR, Metric
from mana_dist.model.inference import Frame
from mana_dist.pictures import Region

_SAMPLED = tuple(metric.name for metric in neighbours.METRICS)


@dataclass(frozen=True)
class Scores:
    """Means over some frames.

    Attributes:
        values: by a metric's name; an infinite PSNR where some frame equals the ground truth; None: not computed.
        frames: their number.
        sampled: what was taken on a sample of the frames, by the name of a neighbour metric.
    """

    values: Mapping[str, float | None]
    frames: int
    sampled: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, metric: Metric) -> float | None:
        return self.values.get(metric.name)

    @property
    def psnr_rgb(self) -> float:
        """PSNR over RGB, by which methods and models are compared; it is always computed."""
        value = self[PSNR]
        assert value is not None
        return value

    def plain(self) -> dict[str, Any]:
        """Return the values and the number of frames side by side, as files have them."""
        return {**self.values, **self.sampled, "frames": self.frames}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make scores of a file's values; metrics may be missing, or be another version's of this package.

        Raises:
            KeyError: the number of frames is missing.
            TypeError: something is no number.
            ValueError: something is no number.
        """
        values = {name: None if value is None else float(value) for name, value in plain.items() if name != "frames"}
        sampled = {name: values.pop(name, None) for name in _SAMPLED}
        found = {name: value for name, value in sampled.items() if value is not None}
        return cls(values, int(plain["frames"]), found)


@dataclass(frozen=True, kw_only=True)
class ClipScores:
    """Results of a clip.

    Attributes:
        clip: its name, unique in the evaluation.
        dataset: the name of the dataset (one per ``--data`` URI) that it belongs to.
        scores: of every method, in the evaluation's order of methods.
        motion: mean optical-flow magnitude of the evaluated frames, LR pixels per frame; None for a single frame.
        notes: particulars that change a number ("cropped from 961x540 to 960x540"); mostly empty.
        digest: of the frames that the methods saw: the ground truth and, where they are given, the LR frames.
    """

    clip: str
    dataset: str
    scores: tuple[Scores, ...]
    motion: float | None
    notes: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class Example:
    """The part of a clip that a picture shows: where the compared frames differ most.

    Attributes:
        clip: its clip's name.
        frame: number in the clip, from the first evaluated one.
        region: where in the frame.
        lr: the region in the LR frame.
        hr: in the ground truth.
        outputs: in each method's frame, in the methods' order.
    """

    clip: str
    frame: int
    region: Region
    lr: Frame
    hr: Frame
    outputs: list[Frame]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All results.

    Attributes:
        protocol: every choice that moves a number.
        methods: names, in the order of the command line.
        clips: results of every clip, in the data's order.
        examples: some of every clip, in the same order, those in which methods differ most first; of very many clips,
            those in which methods differ most.
        top_motion: names of the clips with the largest motion; None: they are not reported.
    """

    protocol: Protocol
    methods: tuple[str, ...]
    clips: tuple[ClipScores, ...]
    examples: tuple[Example, ...] = field(default=(), compare=False)
    top_motion: tuple[str, ...] | None = None

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets, in the data's order."""
        return tuple(dict.fromkeys(clip.dataset for clip in self.clips))

    def mean(self, method: int, clips: Iterable[ClipScores] | None = None) -> Scores:
        """Return the mean over ``clips`` (None: all) of their frames' means, for the method of that position."""
        return mean([clip.scores[method] for clip in (self.clips if clips is None else clips)])

    def of_dataset(self, dataset: str) -> list[ClipScores]:
        """Return the clips of one dataset."""
        return [clip for clip in self.clips if clip.dataset == dataset]

    def of_top_motion(self) -> list[ClipScores]:
        """Return the clips of the large-motion subset (paper, Table 2); empty where it is not reported."""
        return [clip for clip in self.clips if clip.clip in (self.top_motion or ())]


def mean(scores: Sequence[Scores]) -> Scores:
    """Return the mean of every metric, unweighted by the numbers of frames; None where some lack the metric.

    Of a partial metric, and of what was taken on a sample, it is the mean of those that have it.

    ``math.fsum`` makes it independent of the order, so of the number of workers too.
    """
    names = dict.fromkeys(name for entry in scores for name in entry.values)
    values = {name: _average(name, [entry.values.get(name) for entry in scores]) for name in names}
    sampled = {name: [entry.sampled[name] for entry in scores if name in entry.sampled] for name in _SAMPLED}
    means = {name: math.fsum(found) / len(found) for name, found in sampled.items() if found}
    return Scores(values, sum(entry.frames for entry in scores), means)


def _average(name: str, values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    partial = name in METRICS and METRICS[name].partial
    if not numbers or (len(numbers) < len(values) and not partial):
        return None
    return math.inf if math.inf in numbers else math.fsum(numbers) / len(numbers)
