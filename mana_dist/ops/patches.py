"""What patch matching works with: its settings, its results, and the grey levels that it searches."""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

CELL = 4
KEPT = 0.99  # 1 - 0.1 ** 2: of two patches less nine tenths of their means
DARKEST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the matches of a pixel are looked for.

    Attributes:
        patch: side of the patches that are compared, pixels.
        window: side of the square of positions around the pixel's own place.
        coarse_window: the same at a quarter of the size, in pixels of that size, for large motion; 0: no coarse search.
        refine: side of the square of positions, at full size, around what the coarse search found.
    """

    patch: int = 7
    window: int = 9
    coarse_window: int = 17
    refine: int = 5

    @classmethod
    def of(cls, sides: list[int]) -> "Search":
        """Return the search that operators are given: patch, window, coarse_window and refine."""
        patch, window, coarse_window, refine = sides
        return cls(patch=patch, window=window, coarse_window=coarse_window, refine=refine)

    def __post_init__(self) -> None:
        for name in ("patch", "window", "coarse_window", "refine"):
            side = getattr(self, name)
            if not (side % 2 == 1 and side > 0) and not (name == "coarse_window" and side == 0):
                raise ValueError(f"{name} must be odd and positive, got {side}")
        if self.patch > 15:
            raise ValueError(f"patch must be at most 15, got {self.patch}")


class Matches(NamedTuple):
    """Where the centre frame's pixels lie in the other frames, in the frames' order; each (B, T - 1, H, W).

    Attributes:
        score: the likeness of the patches at the match, at most 1; float32.
        y: the row of the best whole position; int32.
        x: its column; int32.
        down: how far the match lies below that position, in [-0.5, 0.5]; float32.
        right: how far it lies to its right.
    """

    score: Tensor
    y: Tensor
    x: Tensor
    down: Tensor
    right: Tensor


def levels(frames: Tensor, search: Search) -> tuple[Tensor, Tensor | None]:
    """The grey frames that are searched, (B, T, H, W), and those at a quarter of the size, or None where none are."""
    grey = frames.mean(2)
    return grey, F.avg_pool2d(grey, CELL) if search.coarse_window and min(grey.shape[-2:]) >= CELL else None


def normalisers(grey: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """The mean of each pixel's patch, and the factor that makes the patch's length 1: two (B, T, H, W)."""
    half = patch // 2
    padded = F.pad(grey, [half] * 4, mode="replicate")
    mean, square = (
        F.avg_pool2d(F.avg_pool2d(of, (patch, 1), stride=1), (1, patch), stride=1) for of in (padded, padded.square())
    )
    return mean, (patch * (square - KEPT * mean.square()).clamp(min=0).sqrt()).clamp(min=DARKEST).reciprocal()
