"""The amount of motion in clips, and the clips with the largest motion (the paper's Table 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from mana_dist.arguments import parse_share
from mana_dist.data.sampling import flow_magnitude, optical_flow
from mana_dist.errors import UserError
from mana_dist.evaluate.results import ClipScores
from mana_dist.model.inference import Frame


class Motion:
    """The mean length of the optical flow over the pixels of the LR frames of a clip, which come one by one."""

    def __init__(self) -> None:
        self._before: NDArray[np.uint8] | None = None
        self._lengths: list[float] = []

    def add(self, lr: Frame, *, follows: bool = True) -> None:
        """Take the next LR frame; ``follows``: no frame is missing before it."""
        grey = cv2.cvtColor(lr, cv2.COLOR_RGB2GRAY)
        if self._before is not None and follows:
            self._lengths.append(float(flow_magnitude(self._before, grey).mean(dtype=np.float64)))
        self._before = grey

    @property
    def mean(self) -> float | None:
        """Mean motion, LR pixels per frame; None for a single frame."""
        return math.fsum(self._lengths) / len(self._lengths) if self._lengths else None


def flow_back(before: Frame, now: Frame) -> NDArray[np.float32]:
    """Return the optical flow from a frame of the ground truth back to the one before, (H, W, 2) pixels.

    It is found at half the frames' size, which takes a fifth of the time.
    """
    height, width = now.shape[:2]
    half = max(1, width // 2), max(1, height // 2)
    small_now, small_before = (
        cv2.cvtColor(cv2.resize(frame, half, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for frame in (now, before)
    )
    flow: NDArray[np.float32] = cv2.resize(optical_flow(small_now, small_before), (width, height))
    flow *= np.array([width / half[0], height / half[1]], np.float32)
    return flow


@dataclass(frozen=True)
class TopMotion:
    """A number or a share of the clips: those with the largest motion.

    Attributes:
        text: as the user wrote it.
        share: of all clips; None: ``clips`` counts.
        clips: their number.
    """

    text: str
    share: Fraction | None
    clips: int = 0

    def count(self, clips: int) -> int:
        """Return how many of ``clips`` these are: at least 1; shares are rounded up."""
        wanted = self.clips if self.share is None else math.ceil(self.share * clips)
        return min(max(wanted, 1), clips)


def parse_top_motion(text: str) -> TopMotion:
    """Parse ``--top-motion``: a share like ``6%``, or a number of clips.

    Raises:
        UserError: neither.
    """
    found = parse_share(text)
    if found is None:
        raise UserError(f"--top-motion {text}: write a share of the clips like 6%, or a number of clips like 10")
    if isinstance(found, int):
        return TopMotion(text.strip(), None, found)
    return TopMotion(text.strip(), found)


def top_motion(clips: Sequence[ClipScores], top: TopMotion) -> tuple[str, ...]:
    """Return the names of the clips with the largest motion, the largest first; ties by name, single frames last."""
    ranked = sorted(clips, key=lambda clip: (math.inf if clip.motion is None else -clip.motion, clip.clip))
    return tuple(clip.clip for clip in ranked[: top.count(len(clips))])
