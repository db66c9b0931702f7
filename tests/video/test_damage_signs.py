"""Signs of damage that FFmpeg does not tell of."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest

from mana_dist.video.damage_signs import Holes, NalSyntax, heard


def units(*bodies: bytes) -> bytes:
    return b"".join(len(body).to_bytes(4) + body for body in bodies)


@pytest.mark.parametrize(
    ("packet", "broken"),
    [
        (units(b"\x65abc", b"\x41defg"), False),
        (units(b"\x65" + b"x" * 200), False),  # the length itself begins with three zero bytes
        (units(b"\x65ab\0\0\x03\0c"), False),  # as encoders write zeros
        (units(b"\x65abc\0\0\0\0"), False),  # zeros at the end are padding,
        (units(b"\x65abc" + bytes(80)), True),  # if they are few
        (units(b"\x65ab\0\0\0cd"), True),
        (units(b"\x65abc")[:-1], True),
        (units(b"\x65abc") + b"\0\0\xff\xffabc", True),
    ],
)
def test_units_with_lengths(packet: bytes, broken: bool) -> None:
    assert NalSyntax(length_bytes=4).is_broken(packet) is broken


@pytest.mark.parametrize(
    ("packet", "broken"),
    [
        (b"\0\0\0\x01\x65abc\0\0\x01\x41def", False),
        (b"\0\0\0\x01\x65abc" + bytes(100) + b"\x01\x41def", False),
        (b"\0\0\0\x01\x65abc" + bytes(100), False),
        (b"\0\0\0\x01\x65abc" + bytes(100) + b"def", True),
    ],
)
def test_units_with_start_codes(packet: bytes, broken: bool) -> None:
    assert NalSyntax(length_bytes=0).is_broken(packet) is broken


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_a_part_without_chroma_is_a_hole(pixels: str) -> None:
    deep = pixels.endswith("10le")
    frame = av.VideoFrame(96, 64, pixels)
    for plane in frame.planes:
        plane.update(np.full(plane.buffer_size // (1 + deep), 1, "<u2" if deep else "u1"))
    assert not Holes().has(frame)
    rows, columns = frame.format.chroma_height(16), frame.format.chroma_width(16)
    for plane in frame.planes[1:]:
        lines = np.frombuffer(plane, "<u2" if deep else "u1").reshape(plane.height, -1)
        lines[rows * 2 : rows * 3, columns * 3 : columns * 4] = 0
    assert Holes().has(frame)


def test_memory_is_given_back_as_holes() -> None:
    holes = Holes()
    frames = [av.VideoFrame(96, 64, "yuv420p") for _ in range(20)]
    for frame in frames:
        for plane in frame.planes:
            plane.update(bytes([9]) * plane.buffer_size)
        holes.retire(frame)
    assert [holes.has(frame) for frame in frames] == [True] * 3 + [False] * 17


def test_errors_are_heard_and_nothing_stays_changed() -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    with heard() as lines:
        for _ in range(2):
            av.logging.log(av.logging.ERROR, "h264", "no  frame!\n")
        av.logging.log(av.logging.INFO, "h264", "fine")
    assert lines == ["no frame!", "no frame!"]
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_many_threads_listen_and_the_log_is_quiet_again_after_them() -> None:
    """A log that stays loud makes decoders with threads of their own wait for Python's lock, for ever."""
    before = av.logging.get_level()
    together = threading.Barrier(8)

    def listen(number: int) -> None:
        together.wait()
        with heard():
            time.sleep(0.01 * number)
            assert av.logging.get_level() == av.logging.ERROR

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(listen, range(8)))
    assert av.logging.get_level() == before


def test_what_other_threads_say_meanwhile_reaches_no_console(caplog: pytest.LogCaptureFixture) -> None:
    """Without this the dry run, which looks at many headers at once, printed lines such as this."""
    with heard() as lines, ThreadPoolExecutor(1) as other:
        other.submit(av.logging.log, av.logging.ERROR, "h264", "co located POCs unavailable\n").result()
    assert (caplog.text, lines) == ("", [])
