"""The shift between two pictures of the same scene, to a fraction of a pixel."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

_MIN_SIDE = 24
_MAX_FREQUENCY = 0.25  # cycles per pixel; above it are mostly aliases, which move with the sampling, not the scene
_STEPS = 4


class Registration(NamedTuple):
    """The shift of one picture against another.

    Attributes:
        right: pixels by which its content lies further right.
        down: pixels by which its content lies further down.
        correlation: correlation of the aligned pictures without their finest detail; 1 for equal ones.
    """

    right: float
    down: float
    correlation: float


def register(reference: NDArray[np.uint8], moved: NDArray[np.uint8]) -> Registration | None:
    """Find the shift between two pictures by phase correlation.

    Its peak gives the shift to the whole pixel. A plane fitted to the remaining phases, weighted by their magnitudes,
    gives the rest, to about 0.02 pixels.

    Args:
        reference: uint8 (h, w, 3), RGB.
        moved: the other, of the same size.

    Returns:
        The shift; None for flat or very small pictures.
    """
    if min(reference.shape[:2]) < _MIN_SIDE:
        return None
    one, other = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (reference, moved))
    if one.std() < 1 or other.std() < 1:
        return None
    return _fraction(one, other, _whole_pixels(one, other))


def _whole_pixels(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, int]:
    """Return the peak of the phase correlation, right and down; no shift if it is larger than any kernel's."""
    # OpenCV's phaseCorrelate errs by half a pixel where a side is odd, and writes into its input.
    spectrum, moved = _spectrum(one), _spectrum(other)
    cross = moved * spectrum.conj()
    peaks = fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9 * np.abs(cross).max())).real
    row, column = divmod(int(peaks.argmax()), one.shape[1])
    right, down = _signed(column, one.shape[1]), _signed(row, one.shape[0])
    return (right, down) if max(abs(right), abs(down)) <= _MIN_SIDE // 4 else (0, 0)


def _fraction(one: NDArray[np.float64], other: NDArray[np.float64], start: tuple[int, int]) -> Registration:
    """Refine the shift ``start``, right within a pixel: the phase of a frequency is proportional to the shift."""
    down, right = (fft.fftfreq(side) for side in one.shape)
    across, along = np.meshgrid(right, down)
    low = np.hypot(across, along) < _MAX_FREQUENCY
    frequencies = 2 * np.pi * np.column_stack([across[low], along[low]])
    spectrum = _spectrum(one)[low]
    shift = np.array(start, np.float64)
    for _ in range(_STEPS):
        # The window moves too, so that it shows the same part of both pictures.
        moved = _spectrum(other, *shift)[low] * np.exp(1j * frequencies @ shift)
        cross = moved * spectrum.conj()
        weights = np.sqrt(np.abs(cross))
        shift -= np.linalg.lstsq(frequencies * weights[:, None], np.angle(cross) * weights)[0]
    strength = np.sqrt((np.abs(spectrum) ** 2).sum() * (np.abs(moved) ** 2).sum())
    return Registration(float(shift[0]), float(shift[1]), float(cross.real.sum() / strength))


def _spectrum(picture: NDArray[np.float64], right: float = 0, down: float = 0) -> NDArray[np.complex128]:
    """Return the spectrum through a Hann window that is shifted right and down."""
    window = np.outer(*map(_hann, picture.shape, (down, right)))
    return fft.fft2((picture - np.average(picture, weights=window)) * window)


def _hann(length: int, shift: float) -> NDArray[np.float64]:
    return np.sin(np.pi * ((np.arange(length) + 0.5 - shift) / length).clip(0, 1)) ** 2


def _signed(position: int, length: int) -> int:
    return position if position <= length // 2 else position - length
