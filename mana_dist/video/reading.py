"""Video files and folders of frames as streams of RGB frames."""

from collections.abc import Callable, Iterator
from itertools import islice, repeat

import av

from mana_dist.errors import UserError
from mana_dist.progress import some
from mana_dist.video.colours import Frame
from mana_dist.video.frame_folders import folder_frames, frame_files, is_folder
from mana_dist.video.strict import Damage, numbered_frames, survey


def read_frames(
    uri: str, start: int = 0, stop: int | None = None, damaged: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """Yield frames ``start`` to ``stop`` (exclusive; None: the end) of a video file or a folder of PNG or JPEG frames.

    Frames are decoded one by one, never all at once, and are as :func:`~mana_dist.video.colours.pixels_of` makes them:
    those that the ingest takes, of a damaged file up to the first that it leaves out. A video is decoded twice for
    that. Interlaced frames are made progressive. A folder's frames come in the order of their names, numbers in them by
    value; pictures that cannot be read are left out.

    Args:
        uri: a video file or a folder, local or with a scheme.
        start: first frame, from 0.
        stop: first frame not wanted any more.
        damaged: called with what is wrong with a video that gives frames nonetheless, before the first of them, and
            with a folder's pictures that cannot be read. What lies behind ``stop`` is not looked at.

    Yields:
        uint8 (H, W, 3), RGB, full range; all of one size.

    Raises:
        UserError: missing, unreadable, no video stream, no frame can be trusted, an empty folder, frames of several
            sizes, two files for one frame.
    """
    return (frame for frame in read_places(uri, start, stop, damaged) if frame is not None)


def read_places(
    uri: str, start: int = 0, stop: int | None = None, damaged: Callable[[str], None] | None = None
) -> Iterator[Frame | None]:
    """Yield what :func:`read_frames` does, with None in place of a picture that cannot be read."""
    damaged = damaged or (lambda _: None)
    frames: Iterator[Frame | None]
    if is_folder(uri):
        frames = _folder_places(uri, start, stop, damaged)
    else:
        frames = islice(_video_frames(uri, stop, damaged), start, stop)
    size: tuple[int, ...] | None = None
    for number, frame in enumerate(frames, start):
        if frame is not None and size is not None and frame.shape != size:
            what = f"{frame_files(uri)[number]}:" if is_folder(uri) else f"{uri}: frame {number}"
            raise UserError(
                f"{what} is {frame.shape[1]}x{frame.shape[0]}, those before are {size[1]}x{size[0]}; all frames of a "
                "clip must have one size"
            )
        size = size if frame is None else frame.shape
        yield frame


def _video_frames(uri: str, stop: int | None, damaged: Callable[[str], None]) -> Iterator[Frame]:
    """Yield the frames up to the first that cannot be trusted."""
    try:
        damage = survey(uri, stop=stop)
        if stop is not None and damage.gaps:  # numbers count what is missing, ``stop`` does not
            damage = survey(uri)
        end = _first_lost(damage)
        count = None if end is None else end - sum(gap < end for gap in damage.gaps)
        if count == 0:
            raise UserError(f"{uri}: no frame of it can be used ({damage.reason})")
        if damage.reason:
            damaged(damage.reason if count is None else f"{damage.reason}; only the first {count} frames are used")
        is_empty = True
        for frame in numbered_frames(uri, stop=end, damage=damage):
            yield frame.pixels
            is_empty = False
    except OSError as error:
        if isinstance(error, av.FFmpegError):
            raise
        raise UserError(f"{uri}: cannot be read ({error})") from error
    if is_empty:
        raise UserError(f"{uri}: holds no video frame that can be decoded")


def _first_lost(damage: Damage) -> int | None:
    """Return the number of the first frame that is there and cannot be trusted."""
    for part in damage.ranges:
        number = part.start
        while number in damage.gaps:
            number += 1
        if number < part.stop:
            return number
    return None


def _folder_places(uri: str, start: int, stop: int | None, damaged: Callable[[str], None]) -> Iterator[Frame | None]:
    lost: list[str] = []
    place = start
    try:
        names = [file.rpartition("/")[2] for file in frame_files(uri)]
        if not names:
            raise UserError(f"{uri}: a folder without PNG or JPEG frames")
        for frame in folder_frames(uri, names, start, stop, lost.append):
            yield from repeat(None, frame.number - place)
            yield frame.pixels
            place = frame.number + 1
    except OSError as error:
        raise UserError(f"{uri}: cannot be read ({error})") from error
    yield from repeat(None, len(names[:stop]) - place)
    if lost:
        damaged(f"{len(lost)} of its pictures cannot be read: {some(lost, 3)}")
