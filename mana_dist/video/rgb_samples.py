"""Samples of RGB and grey pixel formats as stored, without swscale, which rounds and darkens some of them."""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mana_dist.video.filters import filtered

Samples = NDArray[Any]

_PLANAR = re.compile(r"gbra?p(\d+)(msb)?(le|be)")
_WORDS = re.compile(r"((?:rgb|bgr)a?)(?:48|64)(le|be)")
_BIT_FIELDS = re.compile(r"(rgb|bgr)(444|555|565)(le|be)")
_TEN_BITS = re.compile(r"x2(rgb|bgr)10(le|be)")
_GREY = re.compile(r"(gray|ya)(\d*)(le|be)?")
# Bits of red, green and blue in a byte, and where they begin.
_BYTE_FIELDS = {
    "rgb8": ((3, 3, 2), (5, 2, 0)),
    "bgr8": ((3, 3, 2), (0, 3, 6)),
    "rgb4_byte": ((1, 2, 1), (3, 1, 0)),
    "bgr4_byte": ((1, 2, 1), (0, 1, 3)),
}
_LIMITED = 1  # ffmpeg's number of the range


class Stored(NamedTuple):
    """Pixels as stored.

    Attributes:
        samples: (H, W, 3) in the order red, green, blue, or (H, W, 1) grey; unsigned.
        black: what black is stored as, for each of them.
        white: the same of white.
    """

    samples: Samples
    black: tuple[int, ...]
    white: tuple[int, ...]


def stored(picture: Any) -> Stored | None:
    """Return a decoded PyAV frame's samples; None for formats that swscale reads exactly, and for YUV."""
    name = picture.format.name
    if found := _PLANAR.fullmatch(name):
        return _planar(picture, int(found[1]), found[3], highest=bool(found[2]))
    if found := _WORDS.fullmatch(name):
        channels = len(found[1])
        words = _lines(picture, 0, _words(found[2]))[:, : picture.width * channels]
        pixels = words.reshape(len(words), picture.width, channels)
        return _full(pixels[..., [found[1].index(channel) for channel in "rgb"]], 16)
    if name in ("monow", "monob"):
        bits = np.unpackbits(_lines(picture, 0, np.uint8), axis=1)[:, : picture.width, None]
        return _grey(bits ^ 1 if name == "monow" else bits, 1)
    if found := _GREY.fullmatch(name):
        return _grey_planes(picture, int(found[2] or 8), found[3] or "le", with_alpha=found[1] == "ya")
    return _packed(picture, name)


def _packed(picture: Any, name: str) -> Stored | None:
    if found := _BIT_FIELDS.fullmatch(name):
        widths = tuple(int(digit) for digit in found[2])
        middle, low = widths[1:]
        begins = (middle + low, low, 0) if found[1] == "rgb" else (0, low, middle + low)
        return _fields(_lines(picture, 0, _words(found[3])), picture.width, widths, begins)
    if found := _TEN_BITS.fullmatch(name):
        words = _lines(picture, 0, np.dtype(np.uint32).newbyteorder(_order(found[2])))
        return _fields(words, picture.width, (10, 10, 10), (20, 10, 0) if found[1] == "rgb" else (0, 10, 20))
    if name in _BYTE_FIELDS:
        return _fields(_lines(picture, 0, np.uint8), picture.width, *_BYTE_FIELDS[name])
    return None


def _planar(picture: Any, bits: int, order: str, *, highest: bool) -> Stored:
    green, blue, red = (_lines(picture, plane, _words(order))[:, : picture.width] for plane in range(3))
    samples = np.stack([red, green, blue], axis=-1)
    return _full(samples >> 16 - bits if highest else samples, bits)


def _grey_planes(picture: Any, bits: int, order: str, *, with_alpha: bool) -> Stored | None:
    if bits > 16:
        return None
    samples = _lines(picture, 0, np.uint8 if bits == 8 else _words(order))
    samples = samples[:, :: 2 if with_alpha else 1][:, : picture.width, None]
    if int(picture.color_range) == _LIMITED:
        return Stored(samples, (16 << bits - 8,), (235 << bits - 8,))
    return _grey(samples, bits)


def _fields(words: Samples, width: int, widths: tuple[int, ...], begins: tuple[int, ...]) -> Stored:
    """Split words into red, green and blue of these ``widths`` in bits, which begin at these bits of a word."""
    words = words[:, :width]
    fields = [(words >> begin) & (1 << bits) - 1 for begin, bits in zip(begins, widths, strict=True)]
    whites = tuple((1 << bits) - 1 for bits in widths)
    return Stored(np.stack(fields, axis=-1), (0, 0, 0), whites)


def _full(samples: Samples, bits: int) -> Stored:
    return Stored(samples, (0, 0, 0), ((1 << bits) - 1,) * 3)


def _grey(samples: Samples, bits: int) -> Stored:
    return Stored(samples, (0,), ((1 << bits) - 1,))


def _words(order: str) -> np.dtype[Any]:
    return np.dtype(np.uint16).newbyteorder(_order(order))


def _order(name: str) -> Any:
    return ">" if name == "be" else "<"


def _lines(picture: Any, plane: int, dtype: Any) -> Samples:
    """Return a plane's lines from the top, with their padding."""
    if picture.planes[plane].line_size < 0:  # stored from the bottom up, which PyAV's buffers do not show
        picture = filtered(picture, "copy")
    found = picture.planes[plane]
    return np.frombuffer(found, np.uint8).reshape(found.height, found.line_size).view(dtype)
