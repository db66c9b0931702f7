"""What can be upscaled: a video, or a folder of pictures; all of it, or a range of its frames."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from mana_dist import storage
from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.upscale.config import PICTURES_PER_SECOND, Settings
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.source_video import SourceError, Survey, survey
from mana_dist.video.colours import Colours
from mana_dist.video.frame_folders import folder_frames, frame_files, is_folder
from mana_dist.video.frame_names import parse_frame_range
from mana_dist.video.frame_stream import NumberedFrame, open_frames
from mana_dist.video.picture_files import shown_size

_BT709 = Colours(1, False, 1, 1)
_HEADER = 2**16  # bytes at a picture file's beginning that hold its size


class Source(Protocol):
    """An opened source: its frames, and why they end early, empty where they do not."""

    @property
    def cut_off(self) -> str:
        """Why nothing can be read beyond the last frame."""

    def frames(self, *, bits: int) -> Iterator[NumberedFrame]:
        """Yield the frames in order; more than 8 bits give uint16."""


def survey_of(uri: str, settings: Settings) -> Survey:
    """Return the survey of a video or a folder of pictures.

    Raises:
        UserError: missing, nothing that can be upscaled in it, or a rate for a video, which has its own.
        OSError: the storage failed.
    """
    if is_folder(uri):
        return _survey_pictures(uri, settings)
    if settings.fps is not None:
        raise UserError(f"{uri}: --fps is for folders of pictures, and this is no folder; leave it out")
    return survey(uri, keep_gaps=settings.keep_gaps)


def wanted_frames(found: Survey, settings: Settings) -> tuple[int, int | None]:
    """Return the first frame that is wanted, and the first that is not any more; None: all to the end are.

    Raises:
        UserError: the source has none of them.
    """
    first, stop = parse_frame_range(settings.frames)
    if first >= found.frames:
        raise UserError(
            f"{found.uri}: has {found.frames} frames, so none from {first} on; name an earlier START in --frames"
        )
    return first, stop if stop is not None and stop < found.frames else None


def survey_within(found: Survey, first: int, end: int | None) -> Survey:
    """Return the survey as that of a source which holds the frames from ``first`` to ``end`` alone."""
    if end is not None:
        return replace(found, frames=end - first, promised=None, last_pts=None, end=None, is_range=True)
    promised = None if found.promised is None else found.promised - first
    return replace(found, frames=found.frames - first, promised=promised, is_range=first > 0)


@contextmanager
def open_source(found: Survey, begin: Segment, around: int) -> Iterator[Source]:
    """Open a source for a segment and those after it, with at least ``around`` frames before it.

    Raises:
        UserError: it is missing, or cannot be read.
        OSError: the storage failed.
    """
    if found.pictures:
        yield _Pictures(found, max(max(begin.start, begin.first) - around, 0))
        return
    with open_frames(found.uri, begin.seek, in_turn=found.in_turn) as source:
        yield source


@dataclass(frozen=True)
class _Pictures:
    """A folder of pictures: one tick to a picture."""

    found: Survey
    start: int
    cut_off: str = ""

    def frames(self, *, bits: int) -> Iterator[NumberedFrame]:
        for frame in folder_frames(self.found.uri, self.found.pictures, self.start):
            yield frame._replace(time=frame.number, duration=1)


def _survey_pictures(uri: str, settings: Settings) -> Survey:
    names = [file.rpartition("/")[2] for file in frame_files(uri)]
    if not names:
        raise UserError(f"{uri}: a folder without PNG or JPEG frames; name a video, or a folder that holds them")
    if settings.fps is None:
        log.info(f"{uri}: pictures have no rate; shown at {PICTURES_PER_SECOND} frames/s (--fps sets another)")
    first = next(folder_frames(uri, names))
    height, width = first.pixels.shape[:2]
    if not storage.is_remote(uri):  # there it would take a request for each: they are looked at when they are read
        _check_sizes(uri, names, (width, height))
    listed = {file.path: file for file in storage.list_files(uri)}
    files = [listed[name] for name in names if name in listed]
    return Survey(
        uri,
        sum(file.bytes or 0 for file in files),
        max((file.modified for file in files if file.modified is not None), default=None),
        width,
        height,
        8,
        _BT709,
        Fraction(1),
        1 / settings.rate,
        settings.rate,
        len(names),
        len(names),
        len(names) - 1,
        len(names),
        (),
        pictures=tuple(names),
    )


def _check_sizes(uri: str, names: list[str], size: tuple[int, int]) -> None:
    for name in names:
        picture = storage.join(uri, name)
        with suppress(UserError), storage.open_read(picture) as stream:
            width, height = shown_size(stream.read(_HEADER), picture)
            if (width, height) != size:
                break
    else:
        return
    raise SourceError(
        f"{picture}: is {width}x{height}, the first one {size[0]}x{size[1]}; all pictures of a folder must have one "
        "size: move the others elsewhere"
    )
