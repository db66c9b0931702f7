"""Picture files of every kind become the RGB that they show."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from mana_dist.errors import UserError
from mana_dist.video.picture_files import check_one_file_each, natural_key, shown_size, to_frame


def file_of(image: Image.Image, kind: str = "PNG", orientation: int | None = None, **options: object) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def deep(channels: int, seed: int = 0) -> np.ndarray:
    """uint16 noise with every value of a rounding's neighbourhood in it."""
    noise = np.random.default_rng(seed).integers(0, 65536, (64, 48, channels), dtype=np.uint16)
    noise[0, :, 0] = np.arange(48) + 257 * 100 - 24
    return noise


def png16(samples: np.ndarray) -> bytes:
    """OpenCV writes blue first."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(samples[..., order]))[1].tobytes()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded(channels: int) -> None:
    samples = deep(channels)
    colours = np.repeat(samples, 3, axis=2) if channels == 1 else samples[..., :3]
    np.testing.assert_array_equal(to_frame(png16(samples), "a.png"), np.rint(colours / 257))


ORIENTED: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # as the EXIF standard says of rows and columns
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", list(ORIENTED))
def test_orientation_is_applied(orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    expected = ORIENTED[orientation](stored)
    data = file_of(Image.fromarray(stored), orientation=orientation)
    np.testing.assert_array_equal(to_frame(data, "a.png"), expected)
    assert shown_size(data, "a.png") == expected.shape[1::-1]


def test_orientation_of_sixteen_bits() -> None:
    samples = deep(3)
    data = png16(samples)
    exif = file_of(Image.new("RGB", (1, 1)), orientation=6)
    begin = exif.index(b"eXIf") - 4
    chunk = exif[begin : begin + 12 + int.from_bytes(exif[begin : begin + 4])]
    end_of_header = 8 + 12 + 13
    turned = data[:end_of_header] + chunk + data[end_of_header:]
    np.testing.assert_array_equal(to_frame(turned, "a.png"), ORIENTED[6](np.rint(samples / 257)))


def test_palette_bit_and_grey_with_alpha() -> None:
    indices = np.random.default_rng(0).integers(0, 4, (8, 8), dtype=np.uint8)
    palette = np.array([[255, 0, 0], [0, 255, 0], [9, 8, 7], [200, 100, 50]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(to_frame(file_of(image, transparency=1), "a.png"), palette[indices])

    bits = indices > 1
    expected = np.repeat(255 * bits[..., None], 3, axis=2)
    np.testing.assert_array_equal(to_frame(file_of(Image.fromarray(bits)), "a.png"), expected)

    grey = np.dstack([indices * 60, indices * 20])
    np.testing.assert_array_equal(
        to_frame(file_of(Image.fromarray(grey, "LA")), "a.png"), np.dstack([grey[..., 0]] * 3)
    )


def test_cmyk_jpeg() -> None:
    ink = np.full((16, 16, 4), (200, 30, 90, 40), np.uint8)
    frame = to_frame(file_of(Image.fromarray(ink, "CMYK"), "JPEG", quality=100), "a.jpg")
    cyan_magenta_yellow, black = ink[..., :3] / 255, ink[..., 3:] / 255
    assert np.abs(frame - 255 * (1 - cyan_magenta_yellow) * (1 - black)).max() <= 3


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", png16(deep(3))[:900]])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^a.png: not a picture that can be read") as raised:
        to_frame(data, "a.png")
    assert " object at 0x" not in str(raised.value)


def test_numbers_in_names_count_by_value() -> None:
    names = ["²3.png", "im10.png", "im02.png", "x.png", "im2.png", "im10_10.png", "im1.png", "im10_2.png"]
    ordered = ["im1.png", "im02.png", "im2.png", "im10.png", "im10_2.png", "im10_10.png", "x.png", "²3.png"]
    assert sorted(names, key=natural_key) == ordered


def test_each_frame_has_one_file() -> None:
    check_one_file_each("clip", ["0.png", "1.jpg", "00.png", "0.5.png", "a"])
    with pytest.raises(UserError, match=r"^clip: holds both 0.5.png and 0.5.jpg; keep one file for each frame$"):
        check_one_file_each("clip", ["0.png", "0.5.png", "0.5.jpg"])
