"""Picture files of every kind become the RGB that they show."""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mana_dist.errors import UserError
from mana_dist.video.picture_files import MAX_PIXELS, shown_size, to_frame


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


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, as its specification says."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colours: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG file, by its specification; ``rows`` each begin with their filter."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize("behind_the_pixels", [False, True])
def test_exif_of_a_png_larger_than_any_header(behind_the_pixels: bool) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = file_of(Image.fromarray(stored))
    assert len(data) > 256 * 1024
    assert shown_size(data, "a.png") == (400, 300)
    place = len(data) - 12 if behind_the_pixels else 8 + 12 + 13
    turned = data[:place] + chunk(b"eXIf", turned_exif().removeprefix(b"Exif\0\0")) + data[place:]
    assert shown_size(turned, "a.png") == (300, 400)
    np.testing.assert_array_equal(to_frame(turned, "a.png"), ORIENTED[6](stored))


def test_exif_of_a_jpeg_behind_half_a_megabyte() -> None:
    data = file_of(Image.new("RGB", (40, 24), (200, 10, 10)), "JPEG", orientation=6)
    other = b"".join(b"\xff\xed" + struct.pack(">H", 65000) + bytes(64998) for _ in range(8))  # APP13
    late = data[:2] + other + data[2:]
    assert late.index(b"Exif") > 512 * 1000
    assert shown_size(late, "a.jpg") == (24, 40)
    assert to_frame(late, "a.jpg").shape == (40, 24, 3)


def test_broken_exif_turns_nothing() -> None:
    data = png(4, 2, 8, 2, bytes(2 * 13), chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff"))
    assert shown_size(data, "a.png") == (4, 2)
    assert to_frame(data, "a.png").shape == (2, 4, 3)


@pytest.mark.parametrize("reader", [to_frame, shown_size])
def test_no_other_format_is_read(reader: Callable[[bytes, str], object], tmp_path: Path) -> None:
    """Pillow hands PostScript to Ghostscript: here it would leave a file behind."""
    trap = tmp_path / "gs"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    trap.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        patch.delitem(sys.modules, "PIL.EpsImagePlugin", raising=False)  # it remembers where Ghostscript is
        postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
        for kind in ("GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA"):
            with pytest.raises(UserError, match=r"^a.png: not a picture that can be read \(no PNG or JPEG data\)$"):
                reader(file_of(Image.new("RGB", (16, 16)), kind), "a.png")
        with pytest.raises(UserError, match=r"^a.png: not a picture that can be read \(no PNG or JPEG data\)$"):
            reader(postscript, "a.png")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("reader", [to_frame, shown_size])
@pytest.mark.parametrize("kind", ["PNG", "APNG", "16 bits", "JPEG"])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(
    reader: Callable[[bytes, str], object], kind: str
) -> None:
    if kind == "JPEG":
        small = file_of(Image.new("L", (8, 8)), "JPEG")
        size = small.index(b"\xff\xc0") + 5
        data = small[:size] + struct.pack(">HH", 60000, 60000) + small[size + 4 :]
    else:
        frames = [chunk(b"acTL", struct.pack(">II", 2, 0))] if kind == "APNG" else []
        data = png(60000, 60000, 16 if kind == "16 bits" else 8, 2, b"", *frames)
    expected = f"a.png: not a picture that can be read (60000x60000 are more than {MAX_PIXELS} pixels)"
    with pytest.raises(UserError) as raised:
        reader(data, "a.png")
    assert str(raised.value) == expected


def test_animated_pictures_are_refused_and_of_mpo_the_first_is_taken() -> None:
    one, other = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (40, 200))
    with pytest.raises(UserError, match="an animated PNG; save each of its pictures"):
        to_frame(file_of(one, save_all=True, append_images=[other]), "a.png")
    several = io.BytesIO()
    one.save(several, "MPO", save_all=True, append_images=[other])
    assert np.abs(to_frame(several.getvalue(), "a.jpg").astype(int) - 40).max() <= 2


def test_interlaced_png() -> None:
    """Adam7 of 8x8 pixels, by the order in the PNG specification."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [pixels[top::down, left::across] for top, left, down, across in starts]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    data = png(8, 8, 8, 2, rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 1))
    np.testing.assert_array_equal(to_frame(data[:8] + header + data[8 + len(header) :], "a.png"), pixels)


@pytest.mark.parametrize("colours", [0, 2])
def test_sixteen_bits_with_a_transparent_colour(colours: int) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (5, 4, 1 if colours == 0 else 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    data = png(4, 5, 16, colours, rows, chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes()))
    shown = np.repeat(samples, 3, axis=2) if colours == 0 else samples
    np.testing.assert_array_equal(to_frame(data, "a.png"), np.rint(shown / 257))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", png16(deep(3))[:900]])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^a.png: not a picture that can be read") as raised:
        to_frame(data, "a.png")
    assert " object at 0x" not in str(raised.value)
