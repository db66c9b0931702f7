"""Signs of damage in coded video that FFmpeg does not report, or reports in its log alone."""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

# While one thread listens, lines of others come out too, which nobody wants.
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)

_ZEROS = bytes(64)  # so many in a row no encoder writes
_LENGTH_BYTES_AT = {"h264": 4, "hevc": 21}  # where avcC and hvcC boxes say how long the lengths of NAL units are


@contextmanager
def heard(level: int = av.logging.ERROR) -> Iterator[list[str]]:
    """Collect the lines that FFmpeg logs up to this level, in this thread; the list is filled at the context's end."""
    lines: list[str] = []
    log: list[tuple[int, str, str]] = []
    _LISTENERS.come(level)
    try:
        with av.logging.Capture() as log:
            yield lines
    finally:
        _LISTENERS.go(level)
        lines.extend(" ".join(message.split()) for severity, _, message in log if severity <= level)


class _Listeners:
    """The threads that listen: FFmpeg's one log level is raised with the first and restored after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: list[int] = []
        self._before: tuple[int | None, bool] = (None, True)

    def come(self, level: int) -> None:
        with self._lock:
            if not self._levels:
                self._before = (av.logging.get_level(), av.logging.get_skip_repeated())
                av.logging.set_skip_repeated(False)
            self._levels.append(level)
            av.logging.set_level(max(self._levels))

    def go(self, level: int) -> None:
        with self._lock:
            self._levels.remove(level)
            av.logging.set_level(max(self._levels) if self._levels else self._before[0])
            if not self._levels:
                av.logging.set_skip_repeated(self._before[1])


_LISTENERS = _Listeners()


@dataclass(frozen=True)
class NalSyntax:
    """The syntax of H.264 and HEVC packets' bytes, whatever they mean.

    In a NAL unit three zero bytes never follow each other (ITU-T H.264 7.4.1, H.265 7.4.2.1): zeros that something
    else put there are often decoded without an error.

    Attributes:
        length_bytes: size of the length before every unit, as in mp4 and mkv; 0: units begin with start codes.
    """

    length_bytes: int

    @staticmethod
    def of(context: Any) -> "NalSyntax | None":
        """Return the syntax of a PyAV codec context's stream; None for other codecs."""
        at = _LENGTH_BYTES_AT.get(context.name)
        if at is None:
            return None
        setup = context.extradata or b""
        return NalSyntax((setup[at] & 3) + 1 if len(setup) > at and setup[0] == 1 else 0)

    def is_broken(self, packet: bytes) -> bool:
        """Return whether no encoder can have written this packet."""
        if self.length_bytes == 0:
            # Zeros may stand before a start code and at the end.
            begin = packet.find(_ZEROS)
            rest = packet[begin:].lstrip(b"\0") if begin >= 0 else b""
            return bool(rest) and not rest.startswith(b"\x01")
        begin = 0
        while begin + self.length_bytes <= len(packet):
            end = begin + self.length_bytes + int.from_bytes(packet[begin : begin + self.length_bytes])
            unit = packet[begin + self.length_bytes : end]
            if end > len(packet) or b"\0\0\0" in unit.rstrip(b"\0") or unit.endswith(_ZEROS):
                return True
            begin = end
        return False


class Holes:
    """A finder of parts of frames that no slice of the stream covered; FFmpeg's HEVC decoder does not report them.

    Such a part shows what its memory held before. So memory is given back with its chroma set to zero, which no colour
    that can be shown has: both chroma planes at zero would need red and blue far below black. New memory is zero.
    """

    _BLOCK = 16  # luma pixels: no coding tree block of HEVC is smaller
    _HELD_BYTES = 64 * 2**20
    _HELD = (4, 17)  # frames; the decoder refers to up to 16 that were shown

    def __init__(self) -> None:
        self._held: deque[Any] = deque()

    def has(self, picture: Any) -> bool:
        """Return whether a part of this frame was never decoded."""
        planes = _chroma(picture)
        if not planes:
            return False
        height, width = (picture.format.chroma_height(self._BLOCK), picture.format.chroma_width(self._BLOCK))
        blue, red = (plane[height // 2 :: height, width // 2 :: width] for plane in planes)
        return not np.all(blue | red)

    def retire(self, picture: Any) -> None:
        """Take back a frame that nobody needs any more, but perhaps the decoder for a while."""
        self._held.append(picture)
        least, most = self._HELD
        size = sum(plane.buffer_size for plane in picture.planes)
        while len(self._held) > min(most, max(least, self._HELD_BYTES // max(size, 1))):
            old = self._held.popleft()
            old.make_writable()  # copies if the decoder still refers to it
            for plane in _chroma(old):
                plane[:] = 0


def _chroma(picture: Any) -> list[NDArray[Any]]:
    if not picture.format.name.startswith("yuv") or len(picture.planes) < 3:
        return []
    dtype = np.uint8 if picture.format.components[0].bits == 8 else np.uint16
    views = []
    for plane in picture.planes[1:3]:
        lines = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // np.dtype(dtype).itemsize)
        views.append(lines[: plane.height, : plane.width])
    return views
