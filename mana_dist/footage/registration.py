"""How one picture is shifted against another of the same scene."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

_MIN_SIDE = 24
_HIGHEST = 0.25
"""Cycles per pixel: what varies faster is mostly aliases, which move with the sampling, not with the scene."""
_STEPS = 4


class Registration(NamedTuple):
    """Where a picture lies against another.

    Attributes:
        right: pixels that its content lies further right.
        down: pixels that its content lies further down.
        correlation: of the two pictures, without their finest detail, once they lie on each other; 1 for the same.
    """

    right: float
    down: float
    correlation: float


def register(reference: NDArray[np.uint8], moved: NDArray[np.uint8]) -> Registration | None:
    """Find the shift between two pictures by phase correlation.

    Its peak gives the shift to the whole pixel; a plane through the phases that are left, weighted by how strong they
    are, gives the rest, to about 0.02 pixels.

    Args:
        reference: uint8 (h, w, 3), RGB.
        moved: the other, of the same size.

    Returns:
        None where nothing can be said: pictures that are flat or very small.
    """
    if min(reference.shape[:2]) < _MIN_SIDE:
        return None
    one, other = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (reference, moved))
    if one.std() < 1 or other.std() < 1:
        return None
    return _fraction(one, other, _whole_pixels(one, other))


def _whole_pixels(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, int]:
    """Where the phase correlation peaks; nowhere near: no shift, for no kernel has such a one."""
    # OpenCV's phaseCorrelate errs by half a pixel where a side is odd, and writes into its input.
    spectrum, moved = _spectrum(one), _spectrum(other)
    cross = moved * spectrum.conj()
    peaks = fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9 * np.abs(cross).max())).real
    row, column = divmod(int(peaks.argmax()), one.shape[1])
    right, down = _signed(column, one.shape[1]), _signed(row, one.shape[0])
    return (right, down) if max(abs(right), abs(down)) <= _MIN_SIDE // 4 else (0, 0)


def _fraction(one: NDArray[np.float64], other: NDArray[np.float64], start: tuple[int, int]) -> Registration:
    """The shift between pictures that is ``start`` within a pixel: each frequency's phase turns in proportion to it."""
    down, right = (fft.fftfreq(side) for side in one.shape)
    across, along = np.meshgrid(right, down)
    low = np.hypot(across, along) < _HIGHEST
    frequencies = 2 * np.pi * np.column_stack([across[low], along[low]])
    spectrum = _spectrum(one)[low]
    shift = np.array(start, np.float64)
    for _ in range(_STEPS):
        # The window goes along, so that both pictures are seen through it alike.
        moved = _spectrum(other, *shift)[low] * np.exp(1j * frequencies @ shift)
        cross = moved * spectrum.conj()
        weights = np.sqrt(np.abs(cross))
        shift -= np.linalg.lstsq(frequencies * weights[:, None], np.angle(cross) * weights)[0]
    strength = np.sqrt((np.abs(spectrum) ** 2).sum() * (np.abs(moved) ** 2).sum())
    return Registration(float(shift[0]), float(shift[1]), float(cross.real.sum() / strength))


def _spectrum(picture: NDArray[np.float64], right: float = 0, down: float = 0) -> NDArray[np.complex128]:
    """Through a Hann window that lies so much further right and down."""
    window = np.outer(*map(_hann, picture.shape, (down, right)))
    return fft.fft2((picture - np.average(picture, weights=window)) * window)


def _hann(length: int, shift: float) -> NDArray[np.float64]:
    return np.sin(np.pi * ((np.arange(length) + 0.5 - shift) / length).clip(0, 1)) ** 2


def _signed(position: int, length: int) -> int:
    return position if position <= length // 2 else position - length
