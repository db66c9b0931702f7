"""The files of segments: pictures, comparison and record."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import av

from mana_dist import storage
from mana_dist.model.inference import Pixels
from mana_dist.upscale import segment_record
from mana_dist.upscale.comparison import COMPARE_SETTINGS, Comparison
from mana_dist.upscale.config import Settings
from mana_dist.upscale.encode import Encoder, published, suffix_of
from mana_dist.upscale.segment_record import PacketOrder, Record
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.source_video import Survey
from mana_dist.video.frame_stream import NumberedFrame


def files_of(segment: Segment, settings: Settings) -> list[str]:
    """Return the names of a finished segment's files, the record last; without a frame there is the record alone."""
    compared = [compare_name(segment), still_name(segment)] if settings.compare else []
    return [pictures_name(segment, settings), *compared, f"{segment.name}.json"]


def pictures_name(segment: Segment, settings: Settings) -> str:
    """Return the name of the file with the upscaled frames."""
    return f"{segment.name}{suffix_of(settings)}"


def compare_name(segment: Segment) -> str:
    """Return the name of the side-by-side's file."""
    return f"{segment.name}.compare{suffix_of(COMPARE_SETTINGS)}"


def still_name(segment: Segment) -> str:
    """Return the name of the picture of the place where bicubic and MANA differ most."""
    return f"{segment.name}.compare.png"


class Writers:
    """The files of the segments, one after the other; a context: left with an exception, the open one is dropped."""

    def __init__(self, survey: Survey, segments: Sequence[Segment], settings: Settings, folder: str, bits: int) -> None:
        """Take segments that follow each other.

        Args:
            survey: survey of the source.
            segments: to be written, in order.
            settings: how to write.
            folder: URI.
            bits: bits of a sample of the frames to come.
        """
        self._survey, self._settings, self._folder, self._bits = survey, settings, folder, bits
        self._waiting = deque(segments)
        self._open: _Open | None = None

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.drop()

    def add(self, segment: Segment, frame: NumberedFrame, result: Pixels, *, missing: int, begins_shot: bool) -> None:
        """Append a frame and its upscaled one; ``missing`` frames should stand before it.

        Raises:
            OSError: it cannot be written.
        """
        with _write_errors(self._folder):
            if self._open is None or self._open.segment != segment:
                self._close()
                while (following := self._waiting.popleft()) != segment:
                    segment_record.write(self._folder, following, Record())
                self._open = _Open(segment, self._survey, self._settings, self._folder, self._bits)
            self._open.add(frame, result, missing=missing, begins_shot=begins_shot)

    def finish(self, trouble: str) -> None:
        """Finish the last segment.

        Args:
            trouble: why the source could not be read on; empty where it was read as far as needed.

        Raises:
            OSError: it cannot be written.
        """
        with _write_errors(self._folder):
            last = self._waiting[-1] if self._waiting else None
            self._close(trouble if last is None else "")
            for segment in self._waiting:
                segment_record.write(self._folder, segment, Record(trouble=trouble if segment == last else ""))
            self._waiting.clear()

    def _close(self, trouble: str = "") -> None:
        if self._open is not None:
            self._open.finish(trouble)
        self._open = None


class _Open:
    """The segment that is being written."""

    def __init__(self, segment: Segment, survey: Survey, settings: Settings, folder: str, bits: int) -> None:
        self.segment = segment
        self._folder = folder
        self._pts: list[int] = []
        self._damaged: list[int] = []
        self._last_duration = self._missing = self._cuts = 0
        self._files = ExitStack()
        *self._names, _ = files_of(segment, settings)
        with ExitStack() as opening:  # whatever was opened is dropped where the rest cannot be
            opening.callback(self.drop)
            look = survey.rate, survey.colours, survey.pixel_aspect
            self._pictures = self._encoder(pictures_name(segment, settings), settings, bits, *look)
            self._comparison: Comparison | None = None
            if settings.compare:
                self._comparison = Comparison()
                self._side_by_side = self._encoder(compare_name(segment), COMPARE_SETTINGS, 8, *look)
            opening.pop_all()

    def add(self, frame: NumberedFrame, result: Pixels, *, missing: int, begins_shot: bool) -> None:
        self._pictures.add(result)
        if self._comparison is not None:
            self._side_by_side.add(self._comparison.add(frame.pixels, result))
        self._damaged += [len(self._pts)] if frame.damaged else []
        self._pts.append(frame.time)
        self._last_duration = frame.duration
        self._missing += missing
        self._cuts += begins_shot

    def finish(self, trouble: str) -> None:
        self._pictures.finish()
        difference, compare_order = 0.0, PacketOrder()
        if self._comparison is not None:
            self._side_by_side.finish()
            difference, compare_order = self._comparison.difference, self._side_by_side.order
            storage.write_bytes(storage.join(self._folder, still_name(self.segment)), self._comparison.png())
        self._files.close()
        segment_record.write(
            self._folder,
            self.segment,
            Record(
                tuple(self._pts),
                self._last_duration,
                self._pictures.order,
                compare_order,
                self._pictures.width,
                self._pictures.height,
                tuple(self._damaged),
                self._missing,
                trouble,
                self._cuts,
                difference,
                {name: storage.stat(storage.join(self._folder, name)).bytes or 0 for name in self._names},
            ),
        )

    def drop(self) -> None:
        error = RuntimeError("dropped")  # so that the files do not appear under their names
        self._files.__exit__(RuntimeError, error, None)

    def _encoder(self, name: str, settings: Settings, bits: int, *look: Any) -> Encoder:
        path = self._files.enter_context(published(storage.join(self._folder, name)))
        encoder = Encoder(path, settings, bits, *look)
        self._files.callback(encoder.abandon)  # before the file is moved or deleted
        return encoder


@contextmanager
def _write_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"{folder}: cannot be written ({reason})") from error
