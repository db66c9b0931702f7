"""``imresize`` against MATLAB's definition written out literally, exact weights, and PyTorch's antialiased bicubic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mana_dist.data.resize import apply_separable, bicubic_matrix, imresize


def keys_kernel(x: Fraction) -> Fraction:
    """Keys's cubic with a = -1/2, exactly."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x < 2:
        return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def literal_weights(length: int, output: int, position: int) -> dict[int, Fraction]:
    """The weight of every input sample in output sample ``position``, by MATLAB's definition, exactly."""
    scale = Fraction(output, length)
    stretch = min(scale, Fraction(1))
    centre = (position + Fraction(1, 2)) / scale - Fraction(1, 2)
    reach = math.ceil(2 / stretch) + 1
    weights: dict[int, Fraction] = {}
    for tap in range(math.floor(centre) - reach, math.floor(centre) + reach + 1):
        weight = keys_kernel(stretch * (centre - tap))
        source = tap % (2 * length)  # the line, then its mirror image, and so on
        source = source if source < length else 2 * length - 1 - source
        weights[source] = weights.get(source, Fraction(0)) + weight
    total = sum(weights.values())
    return {source: weight / total for source, weight in weights.items() if weight}


def literal_imresize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Every output pixel as an exact weighted sum of input pixels, rounded half up and clipped."""
    rows, columns, channels = image.shape
    result = np.zeros((height, width, channels), np.uint8)
    vertical = [literal_weights(rows, height, y) for y in range(height)]
    horizontal = [literal_weights(columns, width, x) for x in range(width)]
    for y, x, channel in np.ndindex(result.shape):
        value = sum(
            (a * b * int(image[i, j, channel]) for i, a in vertical[y].items() for j, b in horizontal[x].items()),
            Fraction(0),
        )
        result[y, x, channel] = min(255, max(0, math.floor(value + Fraction(1, 2))))
    return result


@pytest.mark.parametrize(
    ("shape", "height", "width"),
    [((16, 24), 4, 6), ((8, 12), 2, 3), ((4, 4), 1, 1), ((5, 3), 20, 12), ((7, 9), 3, 18), ((9, 7), 18, 3)],
)
def test_equals_matlabs_definition_in_exact_arithmetic(shape: tuple[int, int], height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 2), dtype=np.uint8)
    np.testing.assert_array_equal(imresize(image, height, width), literal_imresize(image, height, width))


def test_weights_of_a_fourth() -> None:
    # Keys's cubic at (2k + 1) / 8, k = 7..0, over 4: by hand, in units of 1/4096.
    half = [-7, -45, -75, -49, 93, 399, 745, 987]
    row = bicubic_matrix(64, 16).toarray()[8]
    np.testing.assert_allclose(row[26:42] * 4096, half + half[::-1], rtol=0, atol=1e-9)
    assert np.count_nonzero(row) == 16


def test_weights_of_fourfold_enlargement() -> None:
    # The first of four phases lies 3/8 left of its pixel: the cubic at 13/8, 5/8, 3/8 and 11/8, in 1/1024.
    row = bicubic_matrix(8, 32).toarray()[16]
    np.testing.assert_allclose(row[2:6] * 1024, [-45, 399, 745, -75], rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_constant_image_stays_constant(value: int) -> None:
    image = np.full((20, 36, 3), value, np.uint8)
    assert (imresize(image, 5, 9) == value).all()
    assert (imresize(image, 80, 144) == value).all()


def test_linear_ramp_stays_linear_inside() -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (64, 8, 3))
    # The mean position of output pixel i is input pixel 4i + 1.5, of value 16i + 6.
    np.testing.assert_array_equal(imresize(ramp, 16, 2)[2:-2, 0, 0], 16 * np.arange(2, 14) + 6)


def test_halves_round_upwards() -> None:
    image = np.zeros((2, 2, 1), np.uint8)
    image[0, 0] = 2  # the mean of the four pixels, which a symmetric kernel gives, is 0.5
    assert imresize(image, 1, 1)[0, 0, 0] == 1


@pytest.mark.parametrize(("height", "width"), [(24, 32), (384, 512)])
def test_interior_equals_pytorchs_antialiased_bicubic(height: int, width: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    theirs = torch.nn.functional.interpolate(tensor, size=(height, width), mode="bicubic", antialias=True)
    expected = theirs.clamp(0, 255)[0].permute(1, 2, 0).numpy()
    border = max(2, 2 * height // 96)  # PyTorch drops taps outside instead of mirroring them
    inside = np.s_[border:-border, border:-border]
    assert np.abs(imresize(image, height, width)[inside] - expected[inside]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(720, 1280, 1 / 4), (270, 480, 1 / 2), (90, 164, 4), (96, 128, 1 / 3)]
)
def test_the_exact_way_gives_the_same_bits_as_the_sparse_matrices(height: int, width: int, scale: float) -> None:
    size = (round(height * scale), round(width * scale))
    matrices = bicubic_matrix(height, size[0]), bicubic_matrix(width, size[1])
    random = np.random.default_rng(0)
    for image in (random.integers(0, 256, (height, width, 3)), 255 * random.integers(0, 2, (height, width, 3))):
        pixels = image.astype(np.uint8)
        np.testing.assert_array_equal(imresize(pixels, *size), apply_separable(pixels, *matrices))
