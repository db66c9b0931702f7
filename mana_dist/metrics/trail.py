"""Where the pixels of a frame were in the frame before, by the ground truth's motion, which all methods share."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LARGEST_CHANGE = 20
"""Difference of the truth along the motion, grey levels; where it is larger, the motion is wrong or the pixel new."""
LEAST_SHARE = 0.5
"""Share of a frame's pixels with a smaller one; with fewer, it is a cut, or the motion is too fast to be found."""


class Trail(NamedTuple):
    """Where each pixel of a frame was in the frame before.

    Attributes:
        places: (H, W, 2) float32, pixels from the left and from the top.
        seen: (H, W) uint8: not 0 where that can be relied on.
    """

    places: NDArray[np.float32]
    seen: NDArray[np.uint8]


def follow(before: NDArray[np.uint8], now: NDArray[np.uint8], flow: NDArray[np.float32]) -> Trail | None:
    """Follow the motion of the ground truth back to the frame before.

    Args:
        before: (H, W, 3) uint8 RGB.
        now: of the same shape.
        flow: (H, W, 2) float32, the way of each pixel of ``now`` to its place in ``before``: pixels right and down.

    Returns:
        None where less than :data:`LEAST_SHARE` of the frame can be followed.
    """
    height, width = now.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    places = np.dstack([columns, rows]) + flow
    inside = ((places >= 0) & (places <= [width - 1, height - 1])).all(axis=2)
    change = cv2.absdiff(now.astype(np.float32), carry(before.astype(np.float32), places))
    seen = inside & (cv2.transform(change, np.ones((1, 3))) <= 3 * LARGEST_CHANGE)
    return Trail(places, seen.astype(np.uint8)) if seen.mean() >= LEAST_SHARE else None


def carry(picture: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a picture has at these places, sampled bilinearly, to a 32nd of a pixel."""
    carried: NDArray[np.float32] = cv2.remap(picture, places, None, cv2.INTER_LINEAR)
    return carried
