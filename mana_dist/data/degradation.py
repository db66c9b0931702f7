"""The two degradations of video super-resolution, BI and BD, named and versioned; one code for every command."""

from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mana_dist.data.resize import apply_separable, imresize, tap_matrix

BD_SIGMA = 1.6
BD_RADIUS = 6


class Degradation(StrEnum):
    """How LR frames are made of HR frames.

    BI: MATLAB's antialiased bicubic ``imresize`` (see :func:`mana_dist.data.resize.imresize`).

    BD: a 13x13 Gaussian of sigma 1.6, normalised to sum 1, then every fourth pixel: LR pixel (i, j) is the blurred
    HR pixel (4i, 4j). Borders mirror without repeating the edge pixel; computed in float64, rounded once, halves
    upwards. The same kernel, border and phase as DUF's data and BasicSR's ``duf_downsample``.
    """

    BI = "BI"
    BD = "BD"

    @property
    def version(self) -> int:
        """Goes up whenever the LR values that this degradation gives change."""
        return {Degradation.BI: 1, Degradation.BD: 1}[self]


def degrade(frames: NDArray[np.uint8], degradation: Degradation, scale: int = 4) -> NDArray[np.uint8]:
    """Make LR frames of HR frames.

    Args:
        frames: uint8 (..., H, W, 3); H and W multiples of ``scale``.
        degradation: which way.
        scale: HR side over LR side; BD is defined for 4 alone.

    Returns:
        uint8 (..., H // scale, W // scale, 3).

    Raises:
        ValueError: a side is no multiple of ``scale``, or BD with another scale.
    """
    height, width = frames.shape[-3:-1]
    if height % scale or width % scale:
        raise ValueError(f"frames of {width}x{height} must be cropped to multiples of {scale} first")
    if degradation is Degradation.BD and scale != 4:
        raise ValueError(f"BD is defined for scale 4, not {scale}")
    size = (height // scale, width // scale)
    result = np.empty((*frames.shape[:-3], *size, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        if degradation is Degradation.BI:
            result[index] = imresize(frames[index], *size)
        else:
            result[index] = apply_separable(frames[index], _gaussian_matrix(height), _gaussian_matrix(width))
    return result


def bicubic_upsample(frames: NDArray[np.uint8], scale: int = 4) -> NDArray[np.uint8]:
    """Upscale by MATLAB's bicubic ``imresize``: uint8 (..., h, w, 3) -> uint8 (..., scale * h, scale * w, 3)."""
    height, width = frames.shape[-3:-1]
    result = np.empty((*frames.shape[:-3], scale * height, scale * width, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        result[index] = imresize(frames[index], scale * height, scale * width)
    return result


def crop_to_multiple(frame: NDArray[np.uint8], multiple: int = 4) -> NDArray[np.uint8]:
    """A view of (..., H, W, 3) without the bottom rows and right columns beyond a multiple of ``multiple``."""
    height, width = frame.shape[-3:-1]
    return frame[..., : height - height % multiple, : width - width % multiple, :]


@lru_cache(maxsize=64)
def _gaussian_matrix(length: int) -> sparse.csr_array:
    """BD along one line of ``length`` samples: float64 (length // 4, length). The 2-D kernel is its outer product."""
    offsets = np.arange(-BD_RADIUS, BD_RADIUS + 1)
    kernel = np.exp(-(offsets**2) / (2 * BD_SIGMA**2))
    taps = 4 * np.arange(length // 4)[:, None] + offsets
    weights = np.broadcast_to(kernel / kernel.sum(), taps.shape)
    return tap_matrix(taps, weights, length, edge_repeated=False)
