"""What a request's body may be: the same window from a form of pictures and from an array, one line for the rest."""

import asyncio
import io
import re
import struct
import threading
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import Headers
from urllib3.filepost import encode_multipart_formdata

from mana_dist.model.inference import Frame, Frames
from mana_dist.serve import windows
from mana_dist.serve.windows import Limits, RefusedError, read_window, to_png
from mana_dist.video.picture_files import to_frame
from tests.serve.models import window

LIMITS = Limits(frames=3, body=100_000, pixels=1000)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
PIECE = 1000  # bytes that arrive at a time


class Connection:
    """A body that comes in pieces; counts how much of it was taken."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.taken = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.body), PIECE):
            self.taken += len(self.body[start : start + PIECE])
            yield self.body[start : start + PIECE]


def read(body: bytes | Connection, content_type: str, limits: Limits = LIMITS, *, length: bool = True) -> Frames:
    connection = body if isinstance(body, Connection) else Connection(body)
    headers = {"content-type": content_type} | ({"content-length": str(len(connection.body))} if length else {})
    return asyncio.run(read_window(Headers(headers), connection.pieces(), limits))


def refusal(body: bytes, content_type: str, limits: Limits = LIMITS) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        read(body, content_type, limits)
    assert "\n" not in caught.value.reason
    return caught.value.status, caught.value.reason


def npy(array: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def picture(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def form(files: list[bytes], field: str = "frames") -> tuple[bytes, str]:
    return encode_multipart_formdata([(field, (f"im{n}.png", data, "image/png")) for n, data in enumerate(files, 1)])


def test_pictures_and_arrays_give_the_same_window() -> None:
    frames = window()
    np.testing.assert_array_equal(read(*form([picture(frame) for frame in frames])), frames)
    for content_type in ("application/x-npy", "application/octet-stream; x=y", "Application/X-NPY"):
        np.testing.assert_array_equal(read(npy(frames), content_type), frames)
    np.testing.assert_array_equal(read(npy(np.asfortranarray(frames)), "application/x-npy"), frames)


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("kind", ["array", "form"])
def test_a_body_beyond_the_limit_is_not_read_on(kind: str, length: bool) -> None:
    array = npy(np.zeros((3, 100, 100, 3), np.uint8)), "application/x-npy"
    body, content_type = array if kind == "array" else form([bytes(90_000)])
    connection = Connection(body)
    with pytest.raises(RefusedError, match="longer than .* max_request") as caught:
        read(connection, content_type, Limits(3, body=10_000, pixels=10**6), length=length)
    assert caught.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert connection.taken == (0 if length else 10_000 + PIECE)


def test_a_body_of_just_the_limit_is_read() -> None:
    body = npy(window())
    np.testing.assert_array_equal(read(body, "application/x-npy", Limits(3, len(body), 1000)), window())


def pixels_of(shape: tuple[int, ...], dtype: type = np.uint8) -> bytes:
    return npy(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (lambda: (b"x", ""), 415, r"content type \(none\): send one of multipart/form-data, application/x-npy"),
        (lambda: (b"x", "application/json"), 415, "content type application/json"),
        (lambda: (b"x", "application/x-npy"), 400, "not an array as numpy.save writes it"),
        (lambda: (b"", "application/x-npy"), 400, "not an array"),
        (lambda: (pixels_of((3, 8, 8, 3))[:-1], "application/x-npy"), 400, "holds 575 bytes, not the 576"),
        (lambda: (npy(np.array([{}] * 3)), "application/x-npy"), 422, r"object \(3,\)"),
        (
            lambda: (pixels_of((3, 8, 8, 3), np.float32), "application/x-npy"),
            422,
            r"float32 \(3, 8, 8, 3\)",
        ),
        (lambda: (pixels_of((3, 8, 8, 4)), "application/x-npy"), 422, r"uint8 \(3, H, W, 3\), RGB"),
        (lambda: (pixels_of((2, 8, 8, 3)), "application/x-npy"), 422, "2 frames; this model takes 3"),
        (lambda: (pixels_of((3, 0, 8, 3)), "application/x-npy"), 422, "no pixels"),
        (lambda: (pixels_of((3, 20, 51, 3)), "application/x-npy"), 413, "51x20 have more than 1000 pixels"),
        (lambda: (b"x", "multipart/form-data"), 400, "not a form that can be read"),
        (lambda: (b"x", "multipart/form-data; boundary=y"), 400, "not a form that can be read"),
        (lambda: form([b"x"] * 3), 400, r"file 0 \(im1.png\): not a picture"),
        (lambda: form([picture(window()[0])[:-30]] * 3), 400, r"file 0 \(im1.png\): not a picture"),
        (lambda: form([EPS] * 3), 400, r"file 0 \(im1.png\): not a picture that can be read \(no PNG or JPEG data\)"),
        (lambda: form([picture(window()[0], "BMP")] * 3), 400, r"no PNG or JPEG data"),
        (lambda: form([picture(window()[0])]), 422, "1 frames; this model takes 3"),
        (lambda: form([picture(window()[0])] * 3, field="frame"), 422, "field 'frame': the form holds files named"),
        (lambda: form([picture(window(height)[0]) for height in (12, 12, 13)]), 422, "im3.png.* is 10x13"),
        (lambda: form([picture(np.zeros((40, 40, 3), np.uint8))] * 3), 413, "40x40 have more than 1000 pixels"),
    ],
)
def test_refusals_say_what_is_wrong(body: Callable[[], tuple[bytes, str]], status: int, reason: str) -> None:
    told, line = refusal(*body())
    assert told == status
    assert re.search(reason, line), line


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (9, 9)])
@pytest.mark.parametrize(
    "header",
    [
        "'''",
        "{'descr': ('|u1'",
        "{[]:1}",
        "{1:2,'descr':3}",
        "-" * 9000,
        "(" * 3000,
        "\0",
        "",
        "\n  a\n b",
        "{'descr': ',,,', 'fortran_order': False, 'shape': (3, 4, 4, 3)}",
    ],
)
def test_a_header_that_is_none_is_refused(header: str, version: tuple[int, int]) -> None:
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    body = b"\x93NUMPY" + bytes(version) + length + header.encode()
    status, reason = refusal(body, "application/x-npy")
    assert status == 400
    assert reason.startswith("not an array as numpy.save writes it (")
    assert len(reason) < 300


def test_others_are_served_while_a_picture_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    body, content_type = form([picture(frame) for frame in window()])
    decoding, served = threading.Event(), threading.Event()

    def slow(data: bytes, name: str) -> Frame:
        decoding.set()
        assert served.wait(30)  # for ever, if it stood in the way
        return to_frame(data, name)

    async def other() -> None:
        while not decoding.is_set():
            await asyncio.sleep(0.01)
        served.set()

    async def both() -> Frames:
        read = read_window(Headers({"content-type": content_type}), Connection(body).pieces(), LIMITS)
        return (await asyncio.gather(read, other()))[0]

    monkeypatch.setattr(windows, "to_frame", slow)
    np.testing.assert_array_equal(asyncio.run(both()), window())


def test_a_wrong_header_takes_no_memory() -> None:
    claimed = npy(np.zeros((3, 8, 8, 3), np.uint8)).replace(b"(3, 8, 8, 3)", b"(3,99,99, 3)")
    status, reason = refusal(claimed, "application/x-npy", Limits(3, 10**6, 10**6))
    assert (status, reason) == (400, "the array holds 576 bytes, not the 88209 of its shape (3, 99, 99, 3)")


def test_a_picture_is_measured_before_it_is_decoded() -> None:
    bomb = picture(np.zeros((3000, 3000, 3), np.uint8))
    assert len(bomb) < 100_000
    assert refusal(*form([bomb, b"never looked at", b""]), Limits(3, 10**6, 10**6))[0] == 400  # by its header
    assert refusal(*form([bomb] * 3), Limits(3, 10**6, 10**6))[0] == 413


def test_the_answer_is_the_frame() -> None:
    frame = window()[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_png(frame)))), frame)
