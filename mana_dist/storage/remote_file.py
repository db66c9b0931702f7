"""Remote files as Python's own: seeks cost nothing until something is read, every failure is an OSError."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast

_SKIP_BYTES = 1024 * 1024
"""So far ahead, reading on costs less than another request."""


def as_file(stream: Any, size: int | None, errors: Callable[[], AbstractContextManager[None]]) -> BinaryIO:
    """Return ``stream``, which is at its beginning, as a file.

    FFmpeg seeks to the end and back to learn a file's size, several times; in smart-open's streams each of these seeks
    is a request.

    Args:
        stream: has ``read``, ``seek`` and ``close``; gives what is asked for, less only at its end.
        size: bytes; None where it must be asked.
        errors: a context that makes OSErrors of what the stream raises.
    """
    return cast("BinaryIO", _RemoteFile(stream, size, errors))


class _RemoteFile(io.RawIOBase):
    def __init__(self, stream: Any, size: int | None, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._stream, self._size, self._errors = stream, size, errors
        self._position = self._stream_position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._find_size()
        if offset < 0:  # as for a local file: smart-open would go to the beginning
            raise ValueError(f"negative seek position {offset}")
        self._position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        if self._size is not None and self._position >= self._size:
            return 0
        with self._errors():
            self._move()
            data: bytes = self._stream.read(len(buffer))
        self._position += len(data)
        self._stream_position = self._position
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()

    def _move(self) -> None:
        ahead = self._position - self._stream_position
        if 0 < ahead <= _SKIP_BYTES:
            self._stream.read(ahead)
        elif ahead:
            self._stream.seek(self._position, io.SEEK_SET)
        self._stream_position = self._position

    def _find_size(self) -> int:
        if self._size is None:
            with self._errors():
                self._size = self._stream_position = int(self._stream.seek(0, io.SEEK_END))
        return self._size
