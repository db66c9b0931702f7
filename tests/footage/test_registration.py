"""Shifts of pictures that are known in closed form."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.footage.registration import register


def scene(height: int, width: int, right: float = 0, down: float = 0, seed: int = 0) -> NDArray[np.uint8]:
    """Waves, none shorter than eight pixels, that lie so much further right and down: computed, not resampled."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.zeros((height, width))
    for _ in range(40):
        (across, along), phase = rng.uniform(-0.12, 0.12, 2), rng.uniform(0, 2 * np.pi)
        waves += np.cos(2 * np.pi * (across * (x - right) + along * (y - down)) + phase)
    grey = np.rint(128 + 110 * waves / np.abs(waves).max()).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize(("height", "width"), [(90, 120), (45, 63), (24, 32)])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (0.05, -0.05), (0.25, -0.4), (0.5, 0.5), (1, -1.25), (-2, 0.375)])
def test_a_shift_is_found_to_a_fiftieth_of_a_pixel(height: int, width: int, right: float, down: float) -> None:
    found = register(scene(height, width), scene(height, width, right, down))
    assert found is not None
    assert abs(found.right - right) < 0.02
    assert abs(found.down - down) < 0.02
    assert found.correlation > 0.9


def test_the_pictures_stay_as_they_are() -> None:
    """OpenCV's own phase correlation writes into them."""
    pictures = [scene(64, 64), scene(64, 64, 0.5)]
    before = [picture.copy() for picture in pictures]
    register(*pictures)
    np.testing.assert_array_equal(pictures, before)


def test_other_pictures_and_flat_ones() -> None:
    other = register(scene(90, 120), scene(90, 120, seed=1))
    assert other is not None
    assert other.correlation < 0.75
    assert register(scene(90, 120), np.zeros((90, 120, 3), np.uint8)) is None
    assert register(scene(16, 16), scene(16, 16)) is None
