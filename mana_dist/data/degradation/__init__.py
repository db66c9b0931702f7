"""The degradations of video super-resolution, named and versioned, one module for each.

A new degradation is a new module here that holds a :class:`Degradation`.
"""

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation.bd import BD
from mana_dist.data.degradation.bi import BI
from mana_dist.data.degradation.degradation_kind import Degradation
from mana_dist.data.resize import imresize
from mana_dist.kinds import Table

DEGRADATIONS = Table(Degradation, __name__, __path__, first=(BI.name, BD.name))

__all__ = ["BD", "BI", "DEGRADATIONS", "Degradation", "bicubic_upsample", "crop_to_multiple", "degrade"]


def degrade(frames: NDArray[np.uint8], degradation: Degradation, scale: int = 4) -> NDArray[np.uint8]:
    """Make LR frames of HR frames.

    Args:
        frames: uint8 (..., H, W, 3); H and W multiples of ``scale``.
        degradation: the degradation.
        scale: HR side over LR side; BD is defined for 4 alone.

    Returns:
        uint8 (..., H // scale, W // scale, 3).

    Raises:
        ValueError: a side is no multiple of ``scale``, or the degradation is not defined for it.
    """
    height, width = frames.shape[-3:-1]
    if height % scale or width % scale:
        raise ValueError(f"frames of {width}x{height} must be cropped to multiples of {scale} first")
    result = np.empty((*frames.shape[:-3], height // scale, width // scale, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        result[index] = degradation.shrink(frames[index], scale)
    return result


def bicubic_upsample(frames: NDArray[np.uint8], scale: int = 4) -> NDArray[np.uint8]:
    """Upscale by MATLAB's bicubic ``imresize``: uint8 (..., h, w, 3) -> uint8 (..., scale * h, scale * w, 3)."""
    height, width = frames.shape[-3:-1]
    result = np.empty((*frames.shape[:-3], scale * height, scale * width, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        result[index] = imresize(frames[index], scale * height, scale * width)
    return result


def crop_to_multiple(frame: NDArray[np.uint8], multiple: int = 4) -> NDArray[np.uint8]:
    """Return a view of (..., H, W, 3) without the bottom rows and right columns beyond a multiple of ``multiple``."""
    height, width = frame.shape[-3:-1]
    return frame[..., : height - height % multiple, : width - width % multiple, :]
