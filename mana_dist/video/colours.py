"""Between a video's colours and ours: RGB of 8 or 16 bits, upright, primaries and transfer as coded.

A video's matrix and range are taken as its file tags them. An untagged matrix is BT.709 from 720 coded lines on, else
BT.601; an untagged range is limited. Primaries and transfer are left as coded; alpha is dropped.
"""

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from mana_dist.video.orientation import upright

Frame = NDArray[np.uint8]
Pixels = NDArray[Any]  # uint8, or uint16 from 0 to 65535

_BT709, _UNSPECIFIED, _FULL = 1, 2, 2  # ffmpeg's numbers of matrix, primaries and transfer; of the range
_HD_LINES = 720
# The matrices that swscale knows, by ffmpeg's numbers of them.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_TO_8_BITS = 257  # 65535 / 255
# Between YUV in limited range and 16-bit RGB white is 255 * 256 for swscale; for us it is 65535, 257/256 of that.
_SWSCALE_WHITE = 65280


@dataclass(frozen=True)
class Colours:
    """How a video's pixels are meant, in ffmpeg's numbers; the same of source and result.

    Attributes:
        matrix: between YUV and RGB; always told, since players guess an untold one by the size, which changes here.
        full_range: whether black is 0, not 16.
        primaries: what red, green and blue are.
        transfer: brightness over value; pixels stay as coded, so HDR stays HDR.
    """

    matrix: int
    full_range: bool
    primaries: int
    transfer: int


def colours_of(picture: Any) -> Colours:
    """Those of a decoded PyAV frame; BT.709 in limited range where there are none that a YUV video can have."""
    primaries, transfer = (int(value or _UNSPECIFIED) for value in (picture.color_primaries, picture.color_trc))
    if picture.format.is_rgb:
        told = [_BT709 if value == _UNSPECIFIED else value for value in (primaries, transfer)]
        return Colours(_BT709, False, *told)
    matrix = int(picture.colorspace)
    if matrix == _UNSPECIFIED:  # as to_rgb reads it
        matrix = _BT709 if picture.height >= _HD_LINES else 6
    elif matrix not in _MATRICES:
        matrix = _BT709
    return Colours(matrix, _is_full(picture), primaries, transfer)


def depth(picture: Any) -> int:
    """Bits of a decoded frame's samples."""
    return int(picture.format.components[0].bits)


def to_rgb(frame: Any) -> Frame:
    """A decoded PyAV frame's pixels, upright: the one way from a video's colours to ours.

    Matrix and range are those tagged in the file. Untagged: BT.709 where the frame, as coded, has 720 lines or more,
    else BT.601; limited range unless tagged full. The display matrix's rotation and mirroring are applied.

    Returns:
        uint8 (H, W, 3), RGB, full range.
    """
    matrix = None  # as tagged
    if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
        matrix = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT if frame.format.components[0].bits > 8 else None,
        threads=1,  # else it starts one per core for every frame
    )
    return upright(rgb.to_ndarray(), frame)


def pixels_of(picture: Any, bits: int) -> Pixels:
    """A decoded PyAV frame's pixels, upright, (H, W, 3) RGB, full range.

    Args:
        picture: the frame.
        bits: 8 gives uint8, as :func:`to_rgb`; more gives uint16, 0 to 65535.
    """
    if bits == 8:
        return to_rgb(picture)
    if picture.format.is_rgb:
        pixels = picture.reformat(format="rgb48le", interpolation=_EXACT, threads=1).to_ndarray()
    else:
        matrix = None  # as tagged
        if picture.colorspace == _UNSPECIFIED:
            matrix = Colorspace.ITU709 if picture.height >= _HD_LINES else Colorspace.ITU601
        # Not to rgb48le: FFmpeg 8.1's swscale writes garbage there, from 10 bits in 4:2:0 with these flags.
        pixels = picture.reformat(
            format="gbrp16le", src_colorspace=matrix, dst_color_range=ColorRange.JPEG, interpolation=_EXACT, threads=1
        ).to_ndarray()
        if not _is_full(picture):
            low = np.minimum(pixels, _SWSCALE_WHITE)
            pixels = low + (low >> 8)
    return upright(pixels, picture)


def to_picture(pixels: Pixels, pixel_format: str, colours: Colours) -> Any:
    """A PyAV frame for an encoder, of :func:`pixels_of`'s or an upscaled frame's pixels."""
    deep = pixels.dtype == np.uint16
    if pixel_format.startswith("gbrp10"):
        # By hand: swscale cuts off what it should round.
        ten = ((pixels.astype(np.uint32) * 1023 + 32767) // 65535).astype(np.uint16)
        return av.VideoFrame.from_ndarray(ten, format=pixel_format)
    if not pixel_format.startswith("yuv"):
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24")
        return picture if picture.format.name == pixel_format else picture.reformat(format=pixel_format, threads=1)
    if deep and not colours.full_range:
        pixels = pixels - (pixels.astype(np.uint32) * 255 // 65535).astype(np.uint16)
    picture = av.VideoFrame.from_ndarray(pixels, format="gbrp16le" if deep else "rgb24")
    return picture.reformat(
        format=pixel_format,
        dst_colorspace=_MATRICES[colours.matrix],
        dst_color_range=ColorRange.JPEG if colours.full_range else ColorRange.MPEG,
        interpolation=_EXACT,
        threads=1,
    )


def tag(context: Any, colours: Colours, *, rgb: bool) -> None:
    """Tell an encoder's PyAV context of the colours."""
    context.color_primaries, context.color_trc = colours.primaries, colours.transfer
    if not rgb:
        context.colorspace = colours.matrix
        context.color_range = ColorRange.JPEG if colours.full_range else ColorRange.MPEG


def to_8_bits(pixels: Pixels) -> Pixels:
    """uint8 of uint8 or uint16 pixels, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + _TO_8_BITS // 2) // _TO_8_BITS).astype(np.uint8)


def _is_full(picture: Any) -> bool:
    return int(picture.color_range) == _FULL or picture.format.name.startswith("yuvj")
