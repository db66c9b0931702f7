"""Picture files: their order, and reading them as RGB frames."""

import io
import os
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mana_dist.errors import UserError

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24  # where a PNG's header says how many bits a sample has
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations with a quarter turn
_ORIENTATION = 0x0112

# What Pillow raises for files that are broken or no pictures.
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts 'im2' before 'im10', and 'im01' before 'im1'."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def check_one_file_each(folder: str, names: Iterable[str]) -> None:
    """Refuse two files for one frame, like 0000.png and 0000.jpg.

    Args:
        folder: for the error.
        names: of its frames' files.

    Raises:
        UserError: two of the names differ in their suffix alone.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            raise UserError(f"{folder}: holds both {other} and {name}; keep one file for each frame")


def to_frame(data: bytes, uri: str) -> NDArray[np.uint8]:
    """The picture in a PNG or JPEG file, upright, alpha dropped.

    16 bits are rounded to 8: v / 257. Colours are as stored: profiles and gamma are not applied.

    Args:
        data: the file.
        uri: its name, for errors.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        UserError: not a picture that can be read.
    """
    try:
        if data.startswith(_PNG):
            with Image.open(io.BytesIO(data)) as image:
                image.verify()  # checksums, which loading does not look at
        with Image.open(io.BytesIO(data)) as image:
            if not (data.startswith(_PNG) and data[_PNG_DEPTH] == 16):
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
            deep = Image.fromarray(_sixteen_bits(data))
            deep.getexif().update(image.getexif())
            return np.array(ImageOps.exif_transpose(deep))
    except _UNREADABLE as error:
        raise UserError(f"{uri}: not a picture that can be read ({_reason(error)})") from error


def shown_size(data: bytes, uri: str) -> tuple[int, int]:
    """Width and height of the picture in a PNG or JPEG file, upright; from its header, which may be all of ``data``.

    Raises:
        UserError: no such header.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except _UNREADABLE as error:
        raise UserError(f"{uri}: not a picture that can be read ({_reason(error)})") from error
    return (height, width) if turned else (width, height)


def _reason(error: Exception) -> str:
    # Pillow's own words would name the stream in memory.
    return "no PNG or JPEG data" if isinstance(error, UnidentifiedImageError) else str(error)


def _sixteen_bits(data: bytes) -> NDArray[np.uint8]:
    """Of a PNG with 16 bits: Pillow would cut them off, or clip a grey picture."""
    import cv2  # slow to import, and seldom of use

    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("its 16-bit samples cannot be decoded")
    rounded = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if rounded.ndim == 2:
        return np.repeat(rounded[..., None], 3, axis=2)
    if rounded.shape[2] == 2:
        return np.repeat(rounded[..., :1], 3, axis=2)
    return np.ascontiguousarray(rounded[..., 2::-1])
