"""PNG and JPEG files as RGB frames."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mana_dist.errors import UserError
from mana_dist.video.colours import to_8_bits

MAX_PIXELS = 2**27
"""Size limit of a picture, pixels: 16384x8192. A file of some kilobytes may hold gigabytes of pixels."""

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_SIZE, _PNG_DEPTH = 16, 24  # where a PNG's header has its width and height, and the bits of a sample
_UPRIGHT = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations with a quarter turn

# What Pillow raises for files that are broken or no pictures.
_UNREADABLE = (OSError, ValueError, SyntaxError, struct.error)


def to_frame(data: bytes, uri: str) -> NDArray[np.uint8]:
    """Decode the picture in a PNG or JPEG file, upright, alpha dropped.

    16 bits are rounded to 8: v / 257. Colours are as stored: profiles and gamma are not applied. Of a JPEG file that
    holds several pictures (MPO: stereo, a preview) it is the first, which every viewer shows.

    Args:
        data: the file.
        uri: its name, for errors.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: not a picture that can be read, animated, or with more than :data:`MAX_PIXELS`.
    """
    try:
        if data.startswith(_PNG):
            with _opened(data) as image:
                image.verify()  # checksums, which loading does not look at
        with _opened(data) as image:
            is_deep = data.startswith(_PNG) and data[_PNG_DEPTH] == 16
            frame = Image.fromarray(_sixteen_bits(data)) if is_deep else image.convert("RGB")
            turn = _UPRIGHT.get(_orientation(data, image))
            return np.array(frame if turn is None else frame.transpose(turn))
    except _UNREADABLE as error:
        raise UserError(f"{uri}: not a picture that can be read ({_reason(error)})") from error


def shown_size(data: bytes, uri: str) -> tuple[int, int]:
    """Return the width and height of the picture in a PNG or JPEG file, upright; nothing is decoded.

    Raises:
        UserError: as :func:`to_frame`, as far as headers show it.
    """
    try:
        with _opened(data) as image:
            width, height = image.size
            turned = _orientation(data, image) in _SIDEWAYS
    except _UNREADABLE as error:
        raise UserError(f"{uri}: not a picture that can be read ({_reason(error)})") from error
    return (height, width) if turned else (width, height)


def _opened(data: bytes) -> ImageFile.ImageFile:
    """Open the picture without decoding it.

    The decoder is chosen here: ``Image.open`` tries all of Pillow's formats, and for PostScript starts programs.

    Raises:
        ValueError: neither PNG nor JPEG, or too large.
    """
    image: ImageFile.ImageFile
    if data.startswith(_PNG):
        _check_pixels(*struct.unpack_from(">II", data, _PNG_SIZE))
        image = PngImageFile(io.BytesIO(data))
        if image.is_animated:
            raise ValueError("an animated PNG; save each of its pictures as a file")
        return image
    if not data.startswith(_JPEG):
        raise ValueError("no PNG or JPEG data")
    image = JpegImageFile(io.BytesIO(data))
    _check_pixels(*image.size)
    return image


def _reason(error: Exception) -> str:
    return "cut off" if isinstance(error, struct.error) else str(error)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} are more than {MAX_PIXELS} pixels")


def _orientation(data: bytes, image: ImageFile.ImageFile) -> int:
    """Return EXIF's orientation, as Pillow finds it; 1, upright, if there is none that can be read."""
    try:
        if not data.startswith(_PNG):
            return int(image.getexif().get(Base.Orientation, 1))
        # Pillow decodes a PNG to see what stands behind its pixels, so it is given the file without them.
        with PngImageFile(io.BytesIO(_without_pixels(data))) as rest:
            return int(Image.Image.getexif(rest).get(Base.Orientation, 1))
    except (*_UNREADABLE, LookupError, TypeError):
        return 1


def _without_pixels(data: bytes) -> bytes:
    """Return a PNG file without its chunks of pixels."""
    parts, start = [_PNG], len(_PNG)
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind != b"IDAT":
            parts.append(data[start:end])
        start = end
    return b"".join(parts)


def _sixteen_bits(data: bytes) -> NDArray[np.uint8]:
    """Read a PNG with 16 bits: Pillow would cut them off, or clip a grey picture."""
    import cv2  # slow to import, and seldom of use

    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("its 16-bit samples cannot be decoded")
    rounded = to_8_bits(samples)
    if rounded.ndim == 2:
        return np.repeat(rounded[..., None], 3, axis=2)
    if rounded.shape[2] == 2:
        return np.repeat(rounded[..., :1], 3, axis=2)
    return np.ascontiguousarray(rounded[..., 2::-1])
