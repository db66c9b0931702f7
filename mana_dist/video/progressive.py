"""Interlaced frames made progressive."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import av

from mana_dist.video.filters import filter_graph


class NumberedPicture(NamedTuple):
    """A decoded PyAV frame and its place in display order.

    Attributes:
        number: the place, from 0.
        picture: PyAV's.
        damaged: whether the picture cannot be trusted.
        time: when it is shown, in the stream's units; None if that is not stored.
        duration: how long, in the same; 0 if that is not stored.
    """

    number: int
    picture: Any
    damaged: bool = False
    time: int | None = None
    duration: int = 0


def progressive(frames: Iterable[NumberedPicture]) -> Iterator[NumberedPicture]:
    """Pass on ``frames``; those flagged interlaced go through FFmpeg's ``bwdif``: one frame of each, at its place.

    The result depends on the frame and its two neighbours alone, wherever reading began. After a jump in
    the numbers, or a change of size or format, the next frame has no neighbour before.
    """
    filter_: _Bwdif | None = None
    before: NumberedPicture | None = None
    for frame in frames:
        if before is not None and (frame.number != before.number + 1 or _kind(frame) != _kind(before)):
            if filter_ is not None:
                yield from filter_.end()
            filter_ = before = None
        if filter_ is None and frame.picture.interlaced_frame:
            filter_ = _Bwdif(frame, before)
        if filter_ is None:
            yield frame
        else:
            yield from filter_.put(frame)
        before = frame
    if filter_ is not None:
        yield from filter_.end()


def _kind(frame: NumberedPicture) -> tuple[int, int, str]:
    return frame.picture.width, frame.picture.height, frame.picture.format.name


class _Bwdif:
    """FFmpeg's filter, which gives frames back one frame later; those not flagged pass through unchanged."""

    def __init__(self, frame: NumberedPicture, before: NumberedPicture | None) -> None:
        self._graph = filter_graph(frame.picture, "bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._waiting: deque[NumberedPicture] = deque()
        self._given = before.number if before is not None else -1  # passed on already
        if before is not None:
            list(self.put(before))

    def put(self, frame: NumberedPicture) -> Iterator[NumberedPicture]:
        self._waiting.append(frame)
        self._graph.vpush(frame.picture)
        yield from self._ready()

    def end(self) -> Iterator[NumberedPicture]:
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[NumberedPicture]:
        while True:
            try:
                picture = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame = self._waiting.popleft()
            if frame.number > self._given:
                yield frame._replace(picture=picture)
