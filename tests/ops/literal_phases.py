"""Patch matching and sorting by phase as their definitions say, pixel by pixel in float64: slow, for small frames."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mana_dist.ops.patches import Matches, Search

Array = NDArray[np.float64]


def patch_at(image: Array, y: int, x: int, side: int) -> Array:
    """The side x side square around (y, x) of (..., H, W); beyond the borders the border pixels."""
    height, width = image.shape[-2:]
    rows = np.clip(np.arange(y - side // 2, y + side // 2 + 1), 0, height - 1)
    columns = np.clip(np.arange(x - side // 2, x + side // 2 + 1), 0, width - 1)
    return image[..., rows[:, None], columns]


def descriptors(grey: Array, side: int) -> Array:
    """What the patches of a frame (H, W) are compared by: (H, W, side * side)."""
    height, width = grey.shape
    found = np.empty((height, width, side * side))
    for y, x in itertools.product(range(height), range(width)):
        patch = patch_at(grey, y, x, side).ravel()
        patch = patch - 0.9 * patch.mean()
        found[y, x] = patch / max(float(np.linalg.norm(patch)), 1e-3)
    return found


def likeness(one: Array, other: Array, at: tuple[int, int], to: tuple[int, int]) -> float:
    """The likeness of two frames' patches (their descriptors given) at ``at`` and ``to``; -inf outside the frame."""
    if not all(0 <= place < size for place, size in zip(to, other.shape[:2], strict=True)):
        return -np.inf
    return float(one[at] @ other[to])


def quarter(grey: Array) -> Array:
    """Means of 4 x 4 pixels; what is left over at the right and at the bottom is left out."""
    rows, columns = (size // 4 for size in grey.shape)
    return grey[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4).mean((1, 3))


def around(y: int, x: int, side: int) -> Iterator[tuple[int, int]]:
    reach = range(-(side // 2), side // 2 + 1)
    return itertools.product([y + step for step in reach], [x + step for step in reach])


def candidates(small_one: Array, small_other: Array, y: int, x: int, search: Search) -> list[tuple[int, int]]:
    """The positions that are compared with pixel (y, x), in the order in which of equal ones the first wins.

    ``small_one`` and ``small_other`` are the descriptors of the frames at a quarter of the size.
    """
    places = list(around(y, x, search.window))
    if search.coarse_window and small_one.size:
        rows, columns = small_one.shape[:2]
        cell = min(y // 4, rows - 1), min(x // 4, columns - 1)
        coarse = list(around(*cell, search.coarse_window))
        best = coarse[int(np.argmax([likeness(small_one, small_other, cell, place) for place in coarse]))]
        places += around(y + 4 * (best[0] - cell[0]), x + 4 * (best[1] - cell[1]), search.refine)
    return places


def offset(before: float, middle: float, after: float) -> float:
    """Where the parabola through three scores has its top; 0 at the frame's border."""
    if -np.inf in (before, after):
        return 0.0
    return float(np.clip(0.5 * (before - after) / min(before + after - 2 * middle, -1e-4), -0.5, 0.5))


def sort_pixel(frames: Array, matches: Matches, y: int, x: int, hood: int, bins: int) -> Array:
    """One pixel's phases of frames (T, 3, H, W), from the matches of the whole frame, batch entry 0."""
    middle = len(frames) // 2
    sums, total = np.zeros((bins, bins, 3, hood, hood)), np.zeros((bins, bins))
    for neighbour, frame in enumerate(np.delete(frames, middle, 0)):
        score, v, u, down, right = (float(field[0, neighbour, y, x]) for field in matches)
        value = patch_at(frame, int(v), int(u), hood) - patch_at(frames[middle], y, x, hood)
        confidence = min(max((score - 0.5) / 0.5, 0), 1)
        for i, j in itertools.product(range(bins), range(bins)):
            weight = confidence
            for bin_number, shift in ((i, down), (j, right)):
                # The part of the pixel, counted in parts from the middle of the first one, that was sampled.
                weight *= max(0, 1 - abs((0.5 - shift) * bins - 0.5 - bin_number))
            sums[i, j] += weight * value
            total[i, j] += weight
    averages = sums / (total + 0.2)[..., None, None, None]
    return np.concatenate([averages.ravel(), total.ravel()])
