"""BI and BD against their definitions, and against other libraries where these do the same."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from mana_dist.data.degradation import BD, BI, DEGRADATIONS, Degradation, bicubic_upsample, crop_to_multiple, degrade
from mana_dist.data.resize import imresize
from tests.video.videos import noise_frames

BOTH = [BI, BD]


def test_bi_is_imresize_of_every_frame() -> None:
    frames = noise_frames(2, 16, 24)
    lr = degrade(frames, BI)
    assert lr.shape == (2, 4, 6, 3)
    for frame, result in zip(frames, lr, strict=True):
        np.testing.assert_array_equal(result, imresize(frame, 4, 6))


@pytest.mark.parametrize("size", [(32, 48), (4, 8), (64, 4)])
def test_bd_is_scipys_gaussian_then_every_fourth_pixel(size: tuple[int, int]) -> None:
    frame = noise_frames(1, *size)[0]
    # SciPy cuts the kernel at 4 sigma, here 6 pixels: 13 taps; its "mirror" does not repeat the edge pixel.
    blurred = ndimage.gaussian_filter(frame.astype(np.float64), (1.6, 1.6, 0), mode="mirror", truncate=4)
    np.testing.assert_array_equal(degrade(frame, BD), np.floor(blurred[::4, ::4] + 0.5))


def test_bd_has_the_phase_and_border_of_padded_strided_convolution() -> None:
    """The way the field's code is written: reflect padding, a 13x13 kernel, stride 4."""
    frame = noise_frames(1, 40, 28)[0]
    line = np.exp(-(np.arange(-6, 7) ** 2) / (2 * 1.6**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    planes = torch.from_numpy(frame).permute(2, 0, 1)[:, None].double()
    padded = torch.nn.functional.pad(planes, (6, 6, 6, 6), "reflect")
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(kernel)[None, None], stride=4)
    lr = degrade(frame, BD).transpose(2, 0, 1)
    assert np.abs(lr - expected[:, 0].numpy()).max() <= 0.5 + 1e-9


def test_bd_samples_pixel_zero_and_bi_the_middle_of_four() -> None:
    step = np.zeros((16, 16, 3), np.uint8)
    step[:, 8:] = 255
    assert (degrade(step, BI)[0, :, 0] + degrade(step, BI)[0, ::-1, 0] == 255).all()
    assert degrade(step, BD)[0, 2, 0] > 128  # LR pixel 2 lies on HR pixel 8, the first bright one


@pytest.mark.parametrize("degradation", BOTH)
def test_constant_frames_stay_constant(degradation: Degradation) -> None:
    assert (degrade(np.full((3, 12, 20, 3), 77, np.uint8), degradation) == 77).all()


@pytest.mark.parametrize("degradation", BOTH)
def test_leading_dimensions_are_kept(degradation: Degradation) -> None:
    frames = noise_frames(6, 8, 12)
    stacked = degrade(frames.reshape(2, 3, 8, 12, 3), degradation)
    np.testing.assert_array_equal(stacked.reshape(6, 2, 3, 3), degrade(frames, degradation))
    assert stacked.dtype == np.uint8


def test_sides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="10x8 must be cropped to multiples of 4"):
        degrade(np.zeros((8, 10, 3), np.uint8), BI)


def test_bd_is_for_scale_four_alone() -> None:
    with pytest.raises(ValueError, match="scale 4"):
        degrade(np.zeros((8, 8, 3), np.uint8), BD, scale=2)


def test_upsampling_is_imresize() -> None:
    lr = noise_frames(2, 5, 6)
    up = bicubic_upsample(lr)
    assert up.shape == (2, 20, 24, 3)
    np.testing.assert_array_equal(up[1], imresize(lr[1], 20, 24))


def test_cropping_keeps_the_top_left() -> None:
    frame = noise_frames(1, 11, 14)[0]
    np.testing.assert_array_equal(crop_to_multiple(frame), frame[:8, :12])
    np.testing.assert_array_equal(crop_to_multiple(frame[:8, :12]), frame[:8, :12])


def test_every_degradation_has_a_name_and_a_version() -> None:
    assert [(str(kind), kind.version) for kind in DEGRADATIONS.values()] == [("BI", 1), ("BD", 1), ("real", 1)]
