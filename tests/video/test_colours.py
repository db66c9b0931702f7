"""A decoded frame's RGB against the definitions in float64, in every format, siting, range, matrix and depth."""

from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.errors import UserError
from mana_dist.video.colours import Colours, depth, pixels_of, rgb_of, to_picture
from mana_dist.video.filters import filtered
from mana_dist.video.orientation import Crop
from mana_dist.video.stream_tags import AS_DECODED, Shown
from tests.video.yuv import MATRICES, PLACES, Samples, Tags, picture_of, random_planes, rgb, tagged, yuv

SUBSAMPLED = {"410": (2, 2), "411": (2, 0), "420": (1, 1), "422": (1, 0), "440": (0, 1), "444": (0, 0)}
PLANAR = [
    *("yuv410p", "yuv411p", "yuv420p", "yuv422p", "yuv440p", "yuv444p", "yuva420p", "yuva444p"),
    *("yuv420p9le", "yuv420p10le", "yuv420p10be", "yuv422p10le", "yuv440p10le", "yuv444p10le", "yuva422p10le"),
    *("yuv420p12le", "yuv422p12le", "yuv444p12le", "yuv420p14le", "yuv422p16le", "yuv420p16be"),
]


def check(picture: Any, expected: Samples) -> None:
    """Mean within 0.1 grey level, none over 1; in 16 bits none over 0.05."""
    for bits, top, most in ((8, 255, 1.0), (16, 65535, 0.05)):
        found = pixels_of(picture, bits)
        assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
        error = (found.astype(np.float64) - np.floor(expected * top + 0.5)) * (255 / top)
        assert np.abs(error).max() <= most
        assert np.abs(error.mean(axis=(0, 1))).max() <= 0.1


def sampling(pixel_format: str) -> tuple[int, int]:
    return next(sub for name, sub in SUBSAMPLED.items() if name in pixel_format)


def yuv_picture(pixel_format: str, size: tuple[int, int], tags: Tags) -> tuple[Any, Samples]:
    """A random picture and its RGB."""
    sub, bits = sampling(pixel_format), av.VideoFormat(pixel_format).components[0].bits
    planes = random_planes(*size, sub, bits)
    expected = rgb(planes, bits, sub, tags)
    stored = [plane.byteswap() for plane in planes] if pixel_format.endswith("be") else planes
    return picture_of(stored, size[1], size[0], pixel_format, tags), expected


@pytest.mark.parametrize("pixel_format", PLANAR)
def test_every_siting_in_both_ranges_at_even_and_odd_sizes(pixel_format: str) -> None:
    for place in PLACES:
        for full in (False, True):
            for size in ((48, 64), (35, 51)):
                check(*yuv_picture(pixel_format, size, Tags(place, 1, full)))


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_matrix(matrix: int) -> None:
    for pixel_format in ("yuv420p", "yuv444p", "yuv422p10le"):
        for full in (False, True):
            check(*yuv_picture(pixel_format, (48, 64), Tags("left", matrix, full)))


@pytest.mark.parametrize("pixel_format", ["yuvj411p", "yuvj420p", "yuvj422p", "yuvj440p", "yuvj444p"])
def test_jpeg_formats_are_of_full_range(pixel_format: str) -> None:
    check(*yuv_picture(pixel_format, (48, 64), Tags("center", 6, full=True)))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 3), (13, 9)])
def test_the_smallest_pictures(size: tuple[int, int]) -> None:
    for pixel_format in ("yuv420p", "yuv410p", "yuv422p10le"):
        check(*yuv_picture(pixel_format, size, Tags("topleft", 6)))


def interleaved(planes: list[Samples]) -> list[Samples]:
    return [planes[0], np.stack(planes[1:], axis=-1).reshape(len(planes[1]), -1)]


def uyvy(planes: list[Samples]) -> list[Samples]:
    luma, blue, red = planes
    return [np.stack([blue, luma[:, ::2], red, luma[:, 1::2]], axis=-1).reshape(len(luma), -1)]


@pytest.mark.parametrize(
    ("pixel_format", "sub", "bits", "packed"),
    [
        ("nv12", (1, 1), 8, interleaved),
        ("nv21", (1, 1), 8, lambda planes: interleaved([planes[0], planes[2], planes[1]])),
        ("nv16", (1, 0), 8, interleaved),
        ("uyvy422", (1, 0), 8, uyvy),
        ("p010le", (1, 1), 10, lambda planes: interleaved([plane << 6 for plane in planes])),
        ("p016le", (1, 1), 16, interleaved),
    ],
)
def test_packed_chroma(
    pixel_format: str, sub: tuple[int, int], bits: int, packed: Callable[[list[Samples]], list[Samples]]
) -> None:
    for tags in (Tags("left", 6), Tags("center", 1, full=True)):
        planes = random_planes(32, 48, sub, bits)
        check(picture_of(packed(planes), 48, 32, pixel_format, tags), rgb(planes, bits, sub, tags))


def test_chroma_that_nothing_tags_lies_where_the_caller_says() -> None:
    planes = random_planes(32, 48, (1, 1), 8)
    picture = picture_of(planes, 48, 32, "yuv420p")
    for place in PLACES:
        expected = np.floor(rgb(planes, 8, (1, 1), Tags(place, 6)) * 255 + 0.5)
        assert np.abs(pixels_of(picture, 8, Shown(chroma=place)) - expected).max() <= 1


@pytest.mark.parametrize("pixel_format", ["gray", "gray9le", "gray10le", "gray12be", "gray16le", "gray16be"])
def test_grey_is_of_full_range_unless_it_is_tagged_limited(pixel_format: str) -> None:
    bits = av.VideoFormat(pixel_format).components[0].bits
    levels = np.random.default_rng(0).integers(0, 1 << bits, (9, 33), np.uint8 if bits == 8 else np.uint16)
    picture = picture_of([levels.byteswap() if pixel_format.endswith("be") else levels], 33, 9, pixel_format)
    spread = np.repeat(levels[..., None] / ((1 << bits) - 1), 3, axis=2)
    check(picture, spread)
    check(tagged(picture, Tags(full=True)), spread)
    limited = (levels / (1 << bits - 8) - 16) / 219
    check(tagged(picture, Tags(full=False)), np.clip(np.repeat(limited[..., None], 3, axis=2), 0, 1))


RED, GREEN, BLUE = range(3)
# Bits of the fields of a word from the highest down, and their colours.
FIELDS = {
    "rgb444": ((4, 4, 4), (RED, GREEN, BLUE), np.uint16),
    "rgb555": ((5, 5, 5), (RED, GREEN, BLUE), np.uint16),
    "rgb565": ((5, 6, 5), (RED, GREEN, BLUE), np.uint16),
    "bgr444": ((4, 4, 4), (BLUE, GREEN, RED), np.uint16),
    "bgr555": ((5, 5, 5), (BLUE, GREEN, RED), np.uint16),
    "bgr565": ((5, 6, 5), (BLUE, GREEN, RED), np.uint16),
    "x2rgb10": ((10, 10, 10), (RED, GREEN, BLUE), np.uint32),
    "x2bgr10": ((10, 10, 10), (BLUE, GREEN, RED), np.uint32),
    "rgb8": ((3, 3, 2), (RED, GREEN, BLUE), np.uint8),
    "bgr8": ((2, 3, 3), (BLUE, GREEN, RED), np.uint8),
    "rgb4_byte": ((1, 2, 1), (RED, GREEN, BLUE), np.uint8),
    "bgr4_byte": ((1, 2, 1), (BLUE, GREEN, RED), np.uint8),
}


@pytest.mark.parametrize("name", FIELDS)
def test_rgb_of_few_bits_reaches_white(name: str) -> None:
    """Each field's v is v / (2^n - 1): what repeats no bits and loses none."""
    widths, colours, dtype = FIELDS[name]
    random = np.random.default_rng(0)
    words, expected = np.zeros((17, 33), dtype), np.zeros((17, 33, 3))
    for bits, colour in zip(widths, colours, strict=True):
        values = random.integers(0, 1 << bits, words.shape)
        values[0] = (1 << bits) - 1
        words = (words << bits | values).astype(dtype)
        expected[..., colour] = values / ((1 << bits) - 1)
    orders = {"": words} if dtype == np.uint8 else {"le": words.astype(words.dtype.newbyteorder("<"))}
    if dtype == np.uint16:
        orders["be"] = words.astype(">u2")
    for order, stored in orders.items():
        check(picture_of([stored], 33, 17, name + order), expected)
    assert expected.max() == 1


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_deep_planar_rgb(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (9, 33, 3), np.uint16)
    planes = [values[..., GREEN], values[..., BLUE], values[..., RED]]
    for name in (f"gbrp{bits}le", f"gbrp{bits}be", *((f"gbrap{bits}le",) if bits != 9 else ())):
        stored = [plane.byteswap() for plane in planes] if name.endswith("be") else planes
        check(picture_of(stored, 33, 9, name), values / ((1 << bits) - 1))


@pytest.mark.parametrize("name", ["rgb48", "bgr48", "rgba64", "bgra64"])
def test_deep_packed_rgb(name: str) -> None:
    order = name.rstrip("0123456789")
    values = np.random.default_rng(0).integers(0, 1 << 16, (9, 33, len(order)), np.uint16)
    expected = values[..., [order.index(channel) for channel in "rgb"]] / 65535
    check(picture_of([values.reshape(9, -1)], 33, 9, f"{name}le"), expected)
    check(picture_of([values.byteswap().reshape(9, -1)], 33, 9, f"{name}be"), expected)


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "0rgb", "bgr0", "gbrp", "gbrap"])
def test_rgb_of_8_bits_is_taken_as_it_is(name: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 33, 3), np.uint8)
    if name.startswith("gb"):
        lines = [values[..., GREEN], values[..., BLUE], values[..., RED]]
    else:
        order = name.rstrip("24")
        lines = [np.stack([values[..., "rgb".index(c)] if c in "rgb" else values[..., 0] for c in order], axis=-1)]
        lines = [lines[0].reshape(9, -1)]
    picture = picture_of(lines, 33, 9, name)
    np.testing.assert_array_equal(pixels_of(picture, 8), values)
    np.testing.assert_array_equal(pixels_of(picture, 16), values.astype(np.uint16) * 257)


def test_palettes_and_pictures_of_two_colours() -> None:
    indices = np.random.default_rng(0).integers(0, 256, (9, 33), np.uint8)
    picture = picture_of([indices], 33, 9, "pal8")
    colours = np.random.default_rng(1).integers(0, 1 << 24, 256, np.uint32) | 0xFF000000
    picture.planes[1].update(colours.tobytes())
    expected = np.stack([colours[indices] >> shift & 255 for shift in (16, 8, 0)], axis=-1)
    np.testing.assert_array_equal(pixels_of(picture, 8), expected)
    bits = indices & 1
    for name, white in (("monob", 1), ("monow", 0)):
        shown = pixels_of(picture_of([np.packbits(bits, axis=1)], 33, 9, name), 8)
        np.testing.assert_array_equal(shown, np.repeat((bits[..., None] == white) * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize(
    ("name", "named"), [("ycgco", "YCgCo"), ("bt2020c", "BT.2020 with constant luminance"), ("ictcp", "ICtCp")]
)
def test_matrices_that_cannot_be_read_are_refused_by_name(name: str, named: str) -> None:
    plain = picture_of(random_planes(16, 16, (0, 0), 8), 16, 16, "yuv444p")
    picture = filtered(plain, "setparams", f"colorspace={name}")
    message = f"a.mp4: the pixels of frame 7 cannot .*its colour matrix is {named}"
    with pytest.raises(UserError, match=message) as caught:
        rgb_of("a.mp4", 7, picture, 8, AS_DECODED)
    assert "\n" not in str(caught.value)


def smooth(height: int, width: int) -> NDArray[np.float64]:
    y, x = np.mgrid[:height, :width]
    return np.stack([0.5 + 0.45 * np.sin(x / a + y / b) for a, b in ((5, 9), (7, 4), (6, 11))], axis=-1)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv444p"])
@pytest.mark.parametrize("full", [False, True])
def test_what_goes_to_the_encoder_has_its_chroma_on_the_left(pixel_format: str, full: bool) -> None:
    bits = 10 if "10" in pixel_format else 8
    top = 255 if bits == 8 else 65535
    pixels: Samples = np.rint(smooth(32, 48) * top).astype(np.uint8 if bits == 8 else np.uint16)
    for matrix in (1, 6, 9):
        expected = yuv(pixels / top, bits, sampling(pixel_format), Tags("left", matrix, full))
        picture = to_picture(pixels, pixel_format, Colours(matrix, full, 1, 1))
        assert (picture.colorspace, picture.color_range, depth(picture)) == (matrix, 2 if full else 1, bits)
        for plane, wanted in zip(picture.planes, expected, strict=True):
            dtype = np.uint8 if bits == 8 else np.uint16
            found = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
            assert np.abs(found - wanted).max() < 0.75
            assert abs((found - wanted).mean()) < 0.06


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_decoding_and_encoding_again_and_again_moves_nothing(pixel_format: str, full: bool) -> None:
    """Chroma's place and levels stay: a drift would add up."""
    bits = 8 if pixel_format == "yuv420p" else 10
    top = 255 if bits == 8 else 65535
    dtype = np.uint8 if bits == 8 else np.uint16
    x = np.arange(96)
    edge = 0.5 + 0.3 * np.tanh((x - 47.5) / 8)
    first = np.rint(np.stack(np.broadcast_arrays(edge[None], 1 - edge[None], np.full((32, 96), 0.5)), -1) * top)
    pixels = first.astype(dtype)
    for _ in range(5):
        pixels = pixels_of(to_picture(pixels, pixel_format, Colours(1, full, 1, 1)), bits, Shown(chroma="left"))
    middle = np.interp(0.5, pixels[16, 30:66, RED] / top, x[30:66])
    assert abs(middle - 47.5) < 0.1
    assert np.abs((pixels - first).mean(axis=(0, 1))).max() * 255 / top < 0.5


def test_a_crop_of_everything_is_refused() -> None:
    picture = picture_of(random_planes(16, 24, (0, 0), 8), 24, 16, "yuv444p")
    with pytest.raises(UserError, match="a.mkv: .* crops away all of its 24x16 pixels"):
        rgb_of("a.mkv", 0, picture, 8, Shown(Crop(left=20, right=4)))
