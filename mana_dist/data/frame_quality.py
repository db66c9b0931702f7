"""The quality of whole frames: how much detail, how blocky, how blurred, and a hash that copies share."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

EVERY = 8
"""One frame of so many is looked at."""
_BLOCK = 8
_REBLUR = 9  # pixels
_LINES = 256  # so many rows are enough to see blocks and blur
_HASHED, _KEPT = 32, 8
_FLAT = 4.0
"""Least standard deviation of a picture that has a hash, grey levels: that of a flatter one would be noise's."""

_Grey = NDArray[np.uint8]


class FrameQuality(NamedTuple):
    """The quality of one frame.

    Attributes:
        detail: grey levels; see :func:`detail`.
        blockiness: 1 without blocks; see :func:`blockiness`.
        blur: from 0 to 1; see :func:`blur`.
        hash: see :func:`picture_hash`.
    """

    detail: float
    blockiness: float
    blur: float
    hash: int | None


def measure(frame: NDArray[np.uint8]) -> FrameQuality:
    """Return the quality of a frame, uint8 (H, W, 3) RGB."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return FrameQuality(_detail(grey), blockiness(grey), blur(grey), picture_hash(grey))


def detail(hr: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of neighbouring luma pixels of an RGB frame, down and across; grey levels."""
    return _detail(cv2.cvtColor(hr, cv2.COLOR_RGB2GRAY))


def _detail(grey: _Grey) -> float:
    down, across = (grey[1:], grey[:-1]), (grey[:, 1:], grey[:, :-1])
    return sum(cv2.norm(*pair, cv2.NORM_L1) / max(1, pair[0].size) for pair in (down, across)) / 2


def blockiness(grey: _Grey) -> float:
    """Return how much more luma jumps from block to block of 8x8 pixels than inside: 1 for no more.

    The grid may lie anywhere, as it does in cropped footage; across and down, the worse counts.
    """
    worst = 1.0
    for picture in _some_rows(grey), _some_rows(grey.T):
        if picture.shape[1] < 3 * _BLOCK:
            continue
        steps = np.abs(np.diff(picture.astype(np.int16), axis=1)).mean(0)
        jumps = np.maximum(0, steps[1:-1] - (steps[:-2] + steps[2:]) / 2)  # a ramp, or a wide edge, has none
        means = np.array([jumps[place::_BLOCK].mean() for place in range(_BLOCK)])
        others = (means.sum() - means.max()) / (_BLOCK - 1)
        worst = max(worst, 1 + float((means.max() - others) / max(others + steps.mean(), 1e-6)))
    return worst


def blur(grey: _Grey) -> float:
    """Return how little of a picture's detail another blur takes away: from 0, sharp, to 1 (Crete et al., 2007)."""
    found = 0.0
    for picture in _some_rows(grey), _some_rows(grey.T):
        sharp = picture.astype(np.float32)
        before, after = (np.abs(np.diff(one, axis=1)) for one in (sharp, cv2.blur(sharp, (_REBLUR, 1))))
        total = float(before.sum())
        found = max(found, 1 - float(np.maximum(0, before - after).sum()) / total if total else 1.0)
    return found


def _some_rows(picture: _Grey) -> _Grey:
    return np.ascontiguousarray(picture[:: max(1, len(picture) // _LINES)])


def picture_hash(grey: _Grey) -> int | None:
    """Return 64 bits that change little with size, compression and brightness (pHash); None for a flat picture."""
    small = cv2.resize(grey, (_HASHED, _HASHED), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return None
    waves = cv2.dct(small)[:_KEPT, :_KEPT].ravel()
    return int.from_bytes(np.packbits(waves > np.median(waves[1:])).tobytes(), "big")
