"""The neighbour gain: how much a model's frames owe to their neighbours.

That is the PSNR of its frames less the PSNR of what it makes of the same frames if each neighbour is replaced by the
frame itself. It costs a second pass, so it is taken on a sample of clips and frames.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mana_dist.evaluate.scored_clips import Clip
from mana_dist.model.inference import Frame

CLIPS, FRAMES = 100, 5
"""Largest numbers of clips of a dataset, and of frames of a clip, that are looked at."""
_FIRST, _EVERY = 4, 8

DEFINITION = (
    "of models: PSNR less PSNR with the frame itself in place of each neighbour; mean over every "
    f"{_EVERY}th scored frame from the {_FIRST + 1}th on (every {2 * _EVERY}th, {4 * _EVERY}th, ... where that would "
    f"be more than {FRAMES}; of fewer than {_FIRST + 1} the middle one), without those of infinite PSNR; over "
    f"{CLIPS} evenly spaced clips of a dataset where it has more"
)


class SampledFrame(NamedTuple):
    """A frame whose neighbour gain is taken.

    Attributes:
        lr: the LR frame.
        hr: the part of the ground truth that is compared.
        psnr: of each method's frame, dB.
    """

    lr: Frame
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
    """Return the names of the clips on which the neighbour gain is taken."""
    names: dict[str, list[str]] = {}
    for clip in clips:
        names.setdefault(clip.dataset, []).append(clip.name)
    return frozenset(
        found[place]
        for found in names.values()
        for place in np.linspace(0, len(found) - 1, min(len(found), CLIPS)).round().astype(int)
    )
