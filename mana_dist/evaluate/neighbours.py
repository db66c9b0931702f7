"""What a model makes of neighbour frames, on a sample of clips and frames, since it takes a pass of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mana_dist.data.order import evenly_spaced
from mana_dist.evaluate.scored_clips import Clip
from mana_dist.model.inference import Frame

CLIPS, FRAMES = 100, 4
"""Largest numbers of clips of a dataset, and of frames of a clip, that are looked at."""
BEFORE = 2
"""Number of frames before a sampled one that are held with it."""
_FIRST, _EVERY = 4, 8


@dataclass(frozen=True, kw_only=True)
class NeighbourMetric:
    """A number about a model's use of neighbour frames: a column of the tables where some method has it.

    Attributes:
        name: in files and in MLflow.
        heading: in tables, with the unit.
        what: explanation for a reader.
        definition: every choice that changes it, for the protocol.
        format: of the numbers as shown.
    """

    name: str
    heading: str
    what: str
    definition: str
    format: str


GAIN = NeighbourMetric(
    name="neighbour_gain",
    heading="neighbour gain (dB)",
    what="PSNR over that with the frame itself in place of each neighbour",
    definition=(
        "of models: PSNR less PSNR with the frame itself in place of each neighbour; mean over every "
        f"{_EVERY}th scored frame from the {_FIRST + 1}th on (every {2 * _EVERY}th, {4 * _EVERY}th, ... where that "
        f"would be more than {FRAMES}; of fewer than {_FIRST + 1} the middle one), without those of infinite PSNR; "
        f"over {CLIPS} evenly spaced clips of a dataset where it has more"
    ),
    format="+.3f",
)
MATCH_ERROR = NeighbourMetric(
    name="match_error",
    heading="match error",
    what="difference of the matched neighbour pixels from the centre frame's, over that of pixels at the same place",
    definition=(
        "of models whose alignment matches pixels: mean absolute difference in grey (mean of R, G and B) of an LR "
        f"frame from the pixels it is matched with in the {BEFORE} frames before it, over that from the same places; "
        "of the middle one of the clip's frames of neighbour_gain"
    ),
    format=".2f",
)
METRICS = (GAIN, MATCH_ERROR)
"""All of them, in the tables' order."""


class SampledFrame(NamedTuple):
    """A frame of the sample.

    Attributes:
        lr: the LR frame.
        before: the LR frames before it in its run, at most :data:`BEFORE`.
        hr: the part of the ground truth that is compared.
        psnr: of each method's frame, dB.
    """

    lr: Frame
    before: tuple[Frame, ...]
    hr: Frame
    psnr: tuple[float, ...]


class Sample:
    """The sampled frames of a clip, whose length is not known before its end; no more than a few are held."""

    def __init__(self) -> None:
        self._early: list[SampledFrame] = []
        self._held: list[SampledFrame] = []
        self._count, self._every = 0, _EVERY

    def add(self, frame: SampledFrame) -> None:
        """Take the next scored frame into account."""
        later = self._count - _FIRST
        self._count += 1
        if later < 0:
            self._early.append(frame)
        elif later % self._every == 0:
            self._early.clear()
            self._held.append(frame)
            if len(self._held) > FRAMES:
                del self._held[1::2]
                self._every *= 2

    def frames(self) -> list[SampledFrame]:
        """Return the sample of the frames so far."""
        middle = len(self._early) // 2
        return self._held or self._early[middle : middle + 1]


def mean_gain(gains: Sequence[tuple[float, float]]) -> float | None:
    """Return the mean difference of PSNR with neighbours and without, dB; None if there are no finite ones."""
    found = [real - alone for real, alone in gains if math.isfinite(real) and math.isfinite(alone)]
    return math.fsum(found) / len(found) if found else None


def sampled_clips(clips: Sequence[Clip]) -> frozenset[str]:
    """Return the names of the clips of the sample."""
    names: dict[str, list[str]] = {}
    for clip in clips:
        names.setdefault(clip.dataset, []).append(clip.name)
    return frozenset(found[place] for found in names.values() for place in evenly_spaced(CLIPS, len(found)))
