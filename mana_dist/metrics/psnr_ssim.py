"""PSNR and SSIM of 8-bit RGB frames, and of their luma."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mana_dist.metrics.metric import Metric

PEAK = 255.0
SSIM_SIZE = 11  # side of the Gaussian window, pixels
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03

_LUMA = np.array([[65.481, 128.553, 24.966]])  # ITU-R BT.601, to the studio range 16..235
_STRIP = 32  # rows that are compared at once: their float64 planes stay in a core's cache, whole frames' would not


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio, of one mean squared error over all pixels and channels, peak 255.

    Args:
        a: (H, W, 3) uint8, RGB.
        b: of the same shape.

    Returns:
        dB; infinite for equal frames.

    Raises:
        ValueError: not two uint8 frames of one shape.
    """
    _check(a, b)
    # The sum of squares is a whole number, which OpenCV's square of a root may miss by its last bit.
    return _psnr(round(cv2.norm(np.ascontiguousarray(a), np.ascontiguousarray(b), cv2.NORM_L2SQR)) / a.size)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the structural similarity (Wang et al. 2004), the mean of the three channels' values.

    Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, L 255; population covariance; only pixels whose whole window
    lies in the frame count (MATLAB's 'valid').

    Args:
        a: (H, W, 3) uint8, RGB, at least 11x11.
        b: of the same shape.

    Returns:
        At most 1, which equal frames have.

    Raises:
        ValueError: not two uint8 frames of one shape, or smaller than the window.
    """
    _check(a, b)
    return _ssim(a, b, lambda rows: cv2.split(rows.astype(np.float64)))


def luma(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return Y of MATLAB's rgb2ycbcr (BT.601), not rounded, as BasicSR and the field's Y-channel tables use it.

    Args:
        frame: (H, W, 3) uint8, RGB.

    Returns:
        (H, W), 16 for black to 235 for white.
    """
    y: NDArray[np.float64] = cv2.transform(frame.astype(np.float64), _LUMA / 255)
    y += 16
    return y


def psnr_y(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the PSNR of the :func:`luma` of two (H, W, 3) uint8 RGB frames; peak 255, as in the field's tables."""
    _check(a, b)
    strips = (slice(top, top + _STRIP) for top in range(0, a.shape[0], _STRIP))
    return _psnr(sum(cv2.norm(luma(a[rows]), luma(b[rows]), cv2.NORM_L2SQR) for rows in strips) / a[..., 0].size)


def ssim_y(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Return the SSIM of the :func:`luma` of two (H, W, 3) uint8 RGB frames, L 255."""
    _check(a, b)
    return _ssim(a, b, lambda rows: [luma(rows)])


def _check(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3:
        raise ValueError(
            f"frames must be uint8 (H, W, 3) of one shape, got {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )


def _psnr(error: float) -> float:
    return float(10 * np.log10(PEAK**2 / error)) if error else float("inf")


def _ssim(
    a: NDArray[np.uint8], b: NDArray[np.uint8], planes: Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float64]]]
) -> float:
    """Return the mean similarity of what ``planes`` makes of rows of both frames."""
    if min(a.shape[:2]) < SSIM_SIZE:
        raise ValueError(f"SSIM needs frames of at least {SSIM_SIZE}x{SSIM_SIZE}, got {a.shape[1]}x{a.shape[0]}")
    inside = a.shape[0] - SSIM_SIZE + 1
    total, count = 0.0, 0
    for top in range(0, inside, _STRIP):
        rows = slice(top, min(top + _STRIP, inside) + SSIM_SIZE - 1)
        for x, y in zip(planes(a[rows]), planes(b[rows]), strict=True):
            similarity = _similarity(x, y)
            total += float(similarity.sum())
            count += similarity.size
    return total / count


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the similarity around each pixel whose whole window lies in the planes."""
    c1, c2 = (SSIM_K1 * PEAK) ** 2, (SSIM_K2 * PEAK) ** 2
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = _window_mean(a * b) - product
    variances = _window_mean(a * a + b * b) - squares  # the formula needs only their sum
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _window_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
    # Of one plane: OpenCV blurs interleaved float64 four times slower.
    margin = SSIM_SIZE // 2
    blurred = cv2.GaussianBlur(image, (SSIM_SIZE, SSIM_SIZE), SSIM_SIGMA)
    inside: NDArray[np.float64] = blurred[margin:-margin, margin:-margin]
    return inside


_LUMA_DEFINITION = "MATLAB rgb2ycbcr (BT.601, 16..235), not rounded, peak 255"

PSNR = Metric(
    name="psnr_rgb",
    label="PSNR",
    unit="dB",
    what="peak signal-to-noise ratio over RGB",
    definition="RGB: one MSE over all pixels and channels, peak 255",
    digits=2,
    larger_is_better=True,
    smallest_side=1,
    in_sweeps=True,
    load=lambda _: psnr,
)
SSIM = Metric(
    name="ssim_rgb",
    label="SSIM",
    unit="",
    what="structural similarity, mean of R, G and B",
    definition="RGB: mean of channels; Gaussian 11x11, sigma 1.5, K1 0.01, K2 0.03, L 255, valid region",
    digits=4,
    larger_is_better=True,
    smallest_side=SSIM_SIZE,
    in_sweeps=True,
    load=lambda _: ssim,
)
PSNR_Y = Metric(
    name="psnr_y",
    label="PSNR-Y",
    unit="dB",
    what="peak signal-to-noise ratio of luma",
    definition=_LUMA_DEFINITION,
    digits=2,
    larger_is_better=True,
    smallest_side=1,
    in_sweeps=False,
    load=lambda _: psnr_y,
)
SSIM_Y = Metric(
    name="ssim_y",
    label="SSIM-Y",
    unit="",
    what="structural similarity of luma",
    definition=_LUMA_DEFINITION,
    digits=4,
    larger_is_better=True,
    smallest_side=SSIM_SIZE,
    in_sweeps=False,
    load=lambda _: ssim_y,
)
