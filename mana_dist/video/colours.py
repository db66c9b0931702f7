"""Conversion between a video's pixels and RGB of 8 or 16 bits, upright, primaries and transfer as coded.

A video's matrix and range are taken as its file tags them. An untagged matrix is BT.709 from 720 coded lines on, else
BT.601; an untagged range is limited, of grey pictures full. Primaries and transfer are left as coded; alpha is dropped.

The kernel that brings subsampled chroma to every pixel is bilinear: swscale's, with accurate_rnd and full_chroma_int,
from where its tags say that chroma lies, else from where :func:`mana_dist.video.stream_tags.shown` does.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from mana_dist.errors import UserError
from mana_dist.video.filters import filtered
from mana_dist.video.orientation import upright
from mana_dist.video.rgb_samples import stored
from mana_dist.video.stream_tags import AS_DECODED, Shown

Frame = NDArray[np.uint8]
Pixels = NDArray[Any]  # uint8, or uint16 from 0 to 65535

_BT709, _UNSPECIFIED, _FULL = 1, 2, 2  # ffmpeg's numbers of matrix, primaries and transfer; of the range
_NO_MATRIX = (0, _UNSPECIFIED, 3)  # RGB's and the reserved one say nothing of YUV
_HD_LINES = 720
# The matrices that swscale converts, by ffmpeg's numbers of them.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 with constant luminance", 14: "ICtCp"}
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_TO_SUBSAMPLED = _EXACT | Interpolation.FULL_CHR_H_INP  # else pairs of pixels are averaged, wherever chroma lies
_TO_8_BITS = 257  # 65535 / 255
# Between YUV in limited range and 16-bit RGB white is 255 * 256 for swscale; for us it is 65535.
_SWSCALE_WHITE = 65280
_BLOCK = 16  # pixels: a whole number of chroma samples in every format


@dataclass(frozen=True)
class Colours:
    """The meaning of a video's pixels, in ffmpeg's numbers; the same for source and result.

    Attributes:
        matrix: between YUV and RGB; always tagged, since players guess an untagged one by the size, which changes here.
        full_range: whether black is 0, not 16.
        primaries: what red, green and blue are.
        transfer: brightness over value; pixels stay as coded, so HDR stays HDR.
    """

    matrix: int
    full_range: bool
    primaries: int
    transfer: int


def colours_of(picture: Any) -> Colours:
    """Return the colours of a decoded PyAV frame; BT.709 in limited range where it has none that a YUV video can."""
    primaries, transfer = (int(value or _UNSPECIFIED) for value in (picture.color_primaries, picture.color_trc))
    if picture.format.is_rgb:
        tagged = [_BT709 if value == _UNSPECIFIED else value for value in (primaries, transfer)]
        return Colours(_BT709, False, *tagged)
    return Colours(_matrix(picture), _is_full(picture), primaries, transfer)


def depth(picture: Any) -> int:
    """Return how many bits a decoded frame's samples have."""
    return int(picture.format.components[0].bits)


def rgb_of(uri: str, number: int, picture: Any, bits: int, shown: Shown) -> Pixels:
    """Return :func:`pixels_of` frame ``number`` of the video at ``uri``.

    Raises:
        UserError: they cannot be converted.
    """
    try:
        return pixels_of(picture, bits, shown)
    except (av.FFmpegError, ValueError) as error:
        # A cause that is not FFmpeg's would be taken for the storage's.
        cause = error if isinstance(error, av.FFmpegError) else None
        raise UserError(f"{uri}: the pixels of frame {number} cannot be converted to RGB ({error})") from cause


def pixels_of(picture: Any, bits: int, shown: Shown = AS_DECODED) -> Pixels:
    """Return a decoded PyAV frame's pixels as they are shown: the one way from a video's colours to ours.

    Args:
        picture: the frame.
        bits: up to 8 give uint8; more give uint16, 0 to 65535.
        shown: what of it is shown, and where untagged chroma lies. The display matrix is applied at the end.

    Returns:
        (H, W, 3), RGB, full range.

    Raises:
        ValueError: a matrix that is not one of those that can be read, or a crop of all there is.
        av.FFmpegError: a format that cannot be read.
    """
    if min(shown.crop.size(picture.width, picture.height)) < 1:
        raise ValueError(f"the container crops away all of its {picture.width}x{picture.height} pixels")
    top = 255 if bits <= 8 else 65535
    if (samples := stored(picture)) is not None:
        pixels = _spread(samples.samples, samples.black, samples.white, top)
    elif "f16" in picture.format.name or "f32" in picture.format.name:
        pixels = _spread_evenly(picture.reformat(format="gbrp16le", threads=1).to_ndarray(), 0, 65535, top)
    elif picture.format.is_rgb or picture.format.name == "pal8":
        pixels = _spread_evenly(picture.reformat(format="rgb24", threads=1).to_ndarray(), 0, 255, top)
    else:
        pixels = _from_yuv(picture, top, shown.chroma)
    pixels = shown.crop.of(pixels)
    return upright(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, picture)


def _from_yuv(picture: Any, top: int, chroma: str | None) -> Pixels:
    matrix, full, bits = _matrix(picture), _is_full(picture), depth(picture)
    if matrix not in _MATRICES:
        name = _OTHER_MATRICES.get(matrix, f"number {matrix}")
        raise ValueError(f"its colour matrix is {name}; convert it first, for example with ffmpeg's libplacebo filter")
    # Of swscale's RGB formats gbrp16le alone is right in FFmpeg 8.1: with these flags rgb48le is garbage, and in those
    # of 8 bits a bright blue beyond RGB becomes black. White is where swscale puts it, in full range all ones shifted.
    white = ((1 << bits) - 1) << 16 - bits if full else _SWSCALE_WHITE
    if chroma:  # by a filter, as PyAV has no attribute for it
        picture = filtered(picture, "setparams", f"chroma_location={chroma}")
    pixels = (
        _with_whole_chroma(picture)
        .reformat(
            format="gbrp16le",
            src_colorspace=_MATRICES[matrix],
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_EXACT,
            threads=1,  # else it starts one per core for every frame
        )
        .to_ndarray()[: picture.height, : picture.width]
    )
    return _spread_evenly(pixels, 0, white, top)


def _with_whole_chroma(picture: Any) -> Any:
    """Repeat a frame's edges up to a size at which swscale's chroma is right.

    Swscale stretches all chroma where the last samples stand for fewer pixels, and is wrong with fewer than four.
    """
    size = picture.width, picture.height
    chroma = picture.format.chroma_width(_BLOCK), picture.format.chroma_height(_BLOCK)
    pixels_per_sample = [_BLOCK // count for count in chroma]
    width, height = (
        max(-(-side // per), 4) * per if per > 1 else side for side, per in zip(size, pixels_per_sample, strict=True)
    )
    if (width, height) == size:
        return picture
    # Only what is scaled keeps where its chroma lies.
    larger = picture.reformat(width=width, height=height, interpolation=Interpolation.POINT, threads=1)
    components = picture.format.components
    for number, (to, plane) in enumerate(zip(larger.planes, picture.planes, strict=True)):
        lines, target = (np.frombuffer(part, np.uint8).reshape(part.height, part.line_size) for part in (plane, to))
        if len(picture.planes) > 1:
            unit = -(-components[0].bits // 8) * sum(component.plane == number for component in components)
            shape = lines.shape[0], plane.width, unit
            pixels = lines[:, : plane.width * unit].reshape(shape)
            grown = np.pad(pixels, ((0, to.height - shape[0]), (0, to.width - shape[1]), (0, 0)), "edge")
            target[:, : to.width * unit] = grown.reshape(to.height, -1)
        else:
            least = min(lines.shape[1], target.shape[1])
            target[: len(lines), :least] = lines[:, :least]
    return larger


def _spread(samples: Pixels, black: tuple[int, ...], white: tuple[int, ...], top: int) -> Pixels:
    """Stretch samples so that black becomes 0 and white ``top``, rounded."""
    if len(set(white)) == 1:
        return _spread_evenly(samples, black[0], white[0], top)
    channels = zip(np.moveaxis(samples, -1, 0), black, white, strict=True)
    return np.stack([_spread_evenly(*channel, top) for channel in channels], axis=-1)


def _spread_evenly(samples: Pixels, black: int, white: int, top: int) -> Pixels:
    if (black, white) == (0, top):
        return np.asarray(samples, np.uint8 if top == 255 else np.uint16)
    if (black, white) == (0, _SWSCALE_WHITE):  # as the table, but in whole registers
        low = np.minimum(samples, _SWSCALE_WHITE)
        if top != 255:
            low += low >> 8
            return low
        low += 128
        low >>= 8
        return low.astype(np.uint8)
    found: Pixels = _table(8 * samples.dtype.itemsize, black, white, top)[samples]
    return found


@lru_cache(maxsize=16)
def _table(bits: int, black: int, white: int, top: int) -> Pixels:
    values = (np.arange(1 << min(bits, 16)) - black) * (top / (white - black))
    return np.clip(np.floor(values + 0.5), 0, top).astype(np.uint8 if top == 255 else np.uint16)


def to_picture(pixels: Pixels, pixel_format: str, colours: Colours) -> Any:
    """Return a PyAV frame for an encoder, of :func:`pixels_of`'s or an upscaled frame's pixels.

    Subsampled chroma lies on the left, between two lines (MPEG-2's and H.264's place).
    """
    deep = pixels.dtype == np.uint16
    if pixel_format.startswith("gbrp10"):
        # By hand: swscale cuts off what it should round.
        return av.VideoFrame.from_ndarray(_spread_evenly(pixels, 0, 65535, 1023), format=pixel_format)
    if not pixel_format.startswith("yuv"):
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24")
        return picture if picture.format.name == pixel_format else picture.reformat(format=pixel_format, threads=1)
    if deep:
        pixels = _table(16, 0, 65535, _SWSCALE_WHITE)[pixels]
    # A frame that is made of another takes its place of chroma from it.
    picture = av.VideoFrame.from_ndarray(pixels, format="gbrp16le" if deep else "gbrp")
    limited = filtered(picture, "setparams", "chroma_location=left").reformat(
        format=f"{pixel_format[:7]}16le" if colours.full_range else pixel_format,
        dst_colorspace=_MATRICES[colours.matrix],
        dst_color_range=ColorRange.MPEG,
        interpolation=_TO_SUBSAMPLED,
        threads=1,
    )
    return _in_full_range(limited, pixel_format, colours) if colours.full_range else limited


def _in_full_range(picture: Any, pixel_format: str, colours: Colours) -> Any:
    """Convert a 16-bit YUV frame from limited to full range by hand: swscale cuts off what it should round."""
    result = av.VideoFrame(picture.width, picture.height, pixel_format)
    result.colorspace, result.color_range = colours.matrix, ColorRange.JPEG
    bits = depth(result)
    values = np.arange(1 << 16) / 256
    luma, chroma = (values - 16) / 219, (values - 128) / 224 + (1 << bits - 1) / ((1 << bits) - 1)
    for number, (to, plane) in enumerate(zip(result.planes, picture.planes, strict=True)):
        dtype: Any = np.uint8 if bits == 8 else np.uint16
        top = (1 << bits) - 1
        table = np.clip(np.rint((chroma if number else luma) * top), 0, top).astype(dtype)
        lines = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)[:, : plane.width]
        np.frombuffer(to, dtype).reshape(to.height, -1)[:, : to.width] = table[lines]
    return result


def tag(context: Any, colours: Colours, *, rgb: bool) -> None:
    """Tag an encoder's PyAV context with the colours."""
    context.color_primaries, context.color_trc = colours.primaries, colours.transfer
    if not rgb:
        context.colorspace = colours.matrix
        context.color_range = ColorRange.JPEG if colours.full_range else ColorRange.MPEG


def to_8_bits(pixels: Pixels) -> Pixels:
    """Return uint8 of uint8 or uint16 pixels, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + _TO_8_BITS // 2) // _TO_8_BITS).astype(np.uint8)


def _matrix(picture: Any) -> int:
    matrix = int(picture.colorspace)
    if matrix in _NO_MATRIX:
        return _BT709 if picture.height >= _HD_LINES else 6
    return matrix


def _is_full(picture: Any) -> bool:
    return int(picture.color_range) == _FULL or picture.format.name.startswith(("yuvj", "xyz"))
