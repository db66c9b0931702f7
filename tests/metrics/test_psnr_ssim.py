"""PSNR, SSIM and luma against scikit-image, literal loops and published values."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mana_dist.metrics import luma, psnr, psnr_y, ssim, ssim_y

Frame = NDArray[np.uint8]


def pair(seed: int, height: int = 40, width: int = 53, noise: int = 20) -> tuple[Frame, Frame]:
    """A smooth random frame and a noisy copy of it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    frame = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width]
    noisy = np.clip(frame + random.integers(-noise, noise + 1, frame.shape), 0, 255)
    return frame.astype(np.uint8), noisy.astype(np.uint8)


def skimage_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Wang et al.'s settings in scikit-image, over the 'valid' region."""
    _, full = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return float(full[5:-5, 5:-5].mean())


def literal_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The formula, window by window."""
    taps = [math.exp(-((offset - 5) ** 2) / (2 * 1.5**2)) for offset in range(11)]
    total = sum(p * q for p in taps for q in taps)
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            weights = np.array([[p * q / total for q in taps] for p in taps])
            x, y = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            covariance = (weights * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)),
            )
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(4))
def test_psnr_equals_scikit_image(seed: int) -> None:
    a, b = pair(seed)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)
    assert psnr_y(a, b) == pytest.approx(peak_signal_noise_ratio(luma(a), luma(b), data_range=255), abs=1e-9)


def test_psnr_golden_values() -> None:
    black = np.zeros((12, 12, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == 0
    assert psnr(black, black + 1) == pytest.approx(48.1308, abs=1e-4)  # 20 log10 255
    one_pixel = black.copy()
    one_pixel[0, 0, 0] = 255  # one value of 432
    assert psnr(black, one_pixel) == pytest.approx(10 * math.log10(432))


@pytest.mark.parametrize("seed", range(4))
def test_ssim_equals_scikit_image(seed: int) -> None:
    a, b = pair(seed)
    channels = [skimage_ssim(a[..., c].astype(float), b[..., c].astype(float)) for c in range(3)]
    assert ssim(a, b) == pytest.approx(np.mean(channels), abs=1e-9)
    assert ssim_y(a, b) == pytest.approx(skimage_ssim(luma(a), luma(b)), abs=1e-9)


def test_ssim_equals_the_formula_window_by_window() -> None:
    a, b = pair(9, height=14, width=16)
    channels = [literal_ssim(a[..., c].astype(float), b[..., c].astype(float)) for c in range(3)]
    assert ssim(a, b) == pytest.approx(np.mean(channels), abs=1e-10)


@pytest.mark.parametrize("height", [42, 43, 74, 75, 107])
def test_frames_of_several_strips_equal_the_formula_over_the_whole_frame(height: int) -> None:
    """Heights of one strip of 32 windows, of two and of three, and of a row more."""
    a, b = pair(height, height)
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2)), abs=1e-9)
    assert psnr_y(a, b) == pytest.approx(10 * math.log10(255**2 / np.mean((luma(a) - luma(b)) ** 2)), abs=1e-9)
    channels = [skimage_ssim(a[..., c].astype(float), b[..., c].astype(float)) for c in range(3)]
    assert ssim(a, b) == pytest.approx(np.mean(channels), abs=1e-9)
    assert ssim_y(a, b) == pytest.approx(skimage_ssim(luma(a), luma(b)), abs=1e-9)


def test_parts_of_frames_give_what_copies_of_them_give() -> None:
    a, b = (frame[3:-4, 5:-2] for frame in pair(5))
    for metric in (psnr, ssim, psnr_y, ssim_y):
        assert metric(a, b) == metric(a.copy(), b.copy())
        assert metric(a[::-1], b[::-1]) == pytest.approx(metric(a, b), abs=1e-9)


def test_ssim_of_equal_and_of_flat_frames() -> None:
    a, _ = pair(1)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    black = np.zeros((11, 11, 3), np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(black, black + 255) == pytest.approx(c1 / (255**2 + c1))  # without structure only the luminance term


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [  # MATLAB: rgb2ycbcr([r g b]) * 255, its documented matrix
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((128, 128, 128), 16 + 219 * 128 / 255),
    ],
)
def test_luma_golden_values(rgb: tuple[int, int, int], expected: float) -> None:
    frame = np.full((2, 3, 3), rgb, np.uint8)
    np.testing.assert_allclose(luma(frame), np.full((2, 3), expected), atol=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim, psnr_y, ssim_y])
def test_frames_that_do_not_match_are_refused(metric: type) -> None:
    a, b = pair(0)
    for wrong in (b[:-1], b[..., 0], b.astype(np.float32)):
        with pytest.raises(ValueError, match="of one shape"):
            metric(a, wrong)


def test_ssim_of_a_frame_below_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20, 3), np.uint8))
