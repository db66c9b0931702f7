"""A request's body into a window of frames, and why it cannot be one. Nothing of Ray in it."""

import asyncio
import io
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
from numpy.lib import format as npy
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from mana_dist.errors import UserError, one_line
from mana_dist.model.inference import Frame, Frames
from mana_dist.video.picture_files import shown_size, to_frame

FIELD = "frames"
MULTIPART = "multipart/form-data"
ARRAY_TYPES = ("application/x-npy", "application/octet-stream")
_MAX_FILES = 256  # more than any model's window has
REASON = 200
"""Characters of a library's own message that an answer repeats: some hold the whole header."""


class RefusedError(Exception):
    """A request that cannot be answered with a frame.

    Attributes:
        status: of the answer.
        reason: one line for the client.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[HTTPStatus, str]]:
        return type(self), (self.status, self.reason)  # it comes from a replica of the page


@dataclass(frozen=True)
class Limits:
    """What a window must be.

    Attributes:
        frames: T, as the model was trained.
        body: bytes of the request.
        pixels: of one frame.
    """

    frames: int
    body: int
    pixels: int


async def read_window(headers: Headers, body: AsyncGenerator[bytes, None], limits: Limits) -> Frames:
    """The window that a request carries: PNG or JPEG files in a form, or an array in NumPy's own format.

    The body is read piece by piece, and no further than to the limit. Pictures are decoded in a thread, so that others
    are served meanwhile.

    Args:
        headers: the request's.
        body: its pieces.
        limits: what it must keep to.

    Returns:
        (T, H, W, 3) uint8, RGB.

    Raises:
        RefusedError: 400, the body is not what its type says; 413, too large; 415, another type; 422, no window for
            this model.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MULTIPART and kind not in ARRAY_TYPES:
        known = ", ".join((MULTIPART, *ARRAY_TYPES))
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content type {kind or '(none)'}: send one of {known}")
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body:
        raise _too_long(limits)
    pieces = _limited(body, limits)
    if kind == MULTIPART:
        return await asyncio.to_thread(_of_pictures, await _files(headers, pieces), limits)
    data = bytearray()
    async for piece in pieces:
        data += piece
    return _of_array(bytes(data), limits)


async def _limited(body: AsyncGenerator[bytes, None], limits: Limits) -> AsyncGenerator[bytes, None]:
    count = 0
    async for piece in body:
        count += len(piece)
        if count > limits.body:
            raise _too_long(limits)
        yield piece


def _too_long(limits: Limits) -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is longer than {limits.body / 2**20:g} MiB, the server's max_request; send smaller frames",
    )


async def _files(headers: Headers, pieces: AsyncGenerator[bytes, None]) -> list[tuple[str, bytes]]:
    try:
        form = await MultiPartParser(headers, pieces, max_files=_MAX_FILES, max_fields=0).parse()
    except (MultiPartException, KeyError) as error:
        reason = getattr(error, "message", "its content type names no boundary")
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"not a form that can be read ({reason})") from error
    files: list[tuple[str, bytes]] = []
    try:
        for name, value in form.multi_items():
            if name != FIELD or not isinstance(value, UploadFile):
                raise RefusedError(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f"field {name!r}: the form holds files named {FIELD!r} and nothing else",
                )
            files.append((f"file {len(files)} ({value.filename or 'no name'})", await value.read()))
    finally:
        await form.close()
    return files


def _of_pictures(files: Sequence[tuple[str, bytes]], limits: Limits) -> Frames:
    _check_count(len(files), limits)
    sizes = []
    for name, data in files:
        try:
            sizes.append(shown_size(data, name))
        except UserError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, one_line(error)) from error
    _check_size(*sizes[0], limits)
    for (name, _), size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            found = f"{size[0]}x{size[1]}, the first is {sizes[0][0]}x{sizes[0][1]}"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} is {found}; all frames must be of one size")
    try:
        return np.stack([to_frame(data, name) for name, data in files])
    except UserError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, one_line(error)) from error


def _of_array(data: bytes, limits: Limits) -> Frames:
    """Return the frames of a ``.npy`` file; its header is checked before numpy sets aside the memory it asks for."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # whatever Python's parser, which reads the header, makes of a wrong one
        reason = one_line(error)[:REASON] or type(error).__name__
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"not an array as numpy.save writes it ({reason})") from error
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        found = f"{dtype} {shape}"
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the array is {found}; frames are uint8 ({limits.frames}, H, W, 3), RGB"
        )
    _check_count(shape[0], limits)
    _check_size(shape[2], shape[1], limits)
    expected, there = int(np.prod(shape, dtype=object)), len(data) - stream.tell()
    if there != expected:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"the array holds {there} bytes, not the {expected} of its shape {shape}"
        )
    pixels = np.frombuffer(data, np.uint8, offset=stream.tell())
    return pixels.reshape(shape, order="F" if fortran else "C")


def _check_count(count: int, limits: Limits) -> None:
    if count != limits.frames:
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{count} frames; this model takes {limits.frames} consecutive frames and upscales the middle one",
        )


def _check_size(width: int, height: int, limits: Limits) -> None:
    if min(width, height) < 1:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"frames of {width}x{height} have no pixels")
    if width * height > limits.pixels:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"frames of {width}x{height} have more than {limits.pixels} pixels, the server's max_pixels",
        )


def to_png(frame: Frame) -> bytes:
    """The PNG file of a (H, W, 3) uint8 RGB frame, made for speed: large pictures take seconds at Pillow's default."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
