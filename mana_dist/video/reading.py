"""Reading video files and folders of frames as streams of RGB frames."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any

import av

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.video.colours import Frame, to_rgb
from mana_dist.video.containers import DEFAULT_RATE, check_not_encrypted, open_video
from mana_dist.video.frame_folders import frame_files, is_folder
from mana_dist.video.picture_files import to_frame
from mana_dist.video.progressive import NumberedPicture, progressive

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header and first frame tell.

    Attributes:
        width: pixels, as shown (rotation applied).
        height: pixels, as shown.
        frames: the header's count; None where the header has none. A damaged file may hold fewer.
        rate: frames per second.
    """

    width: int
    height: int
    frames: int | None
    rate: Fraction


def probe(uri: str) -> VideoInfo:
    """Size, length and rate of the video file or folder of frames at ``uri``; decodes one frame.

    Raises:
        UserError: missing, unreadable, no video stream, no frame decodes, or an empty folder.
    """
    first = next(read_frames(uri, stop=1))
    height, width = first.shape[:2]
    if is_folder(uri):
        return VideoInfo(width, height, len(frame_files(uri)), DEFAULT_RATE)
    with open_video(uri) as (_, stream):
        return VideoInfo(
            width, height, stream.frames or None, stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        )


def read_frames(
    uri: str, start: int = 0, stop: int | None = None, damaged: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """The frames ``start`` to ``stop`` (exclusive; None: the end) of a video file or a folder of PNG or JPEG frames.

    Frames are decoded one by one, never all at once, and are as :func:`to_rgb` makes them. A file that cannot be
    decoded to its end gives the frames before, and a warning in the log. Interlaced frames are made progressive. A
    folder's frames come in the order of their names, numbers in them by value.

    Args:
        uri: a video file or a folder, local or with a scheme.
        start: first frame, from 0.
        stop: first frame not wanted any more.
        damaged: told of what is wrong with a video nonetheless: it ends before its header says so, or a frame of it is
            damaged. Of what lies behind ``stop`` nothing is known.

    Yields:
        uint8 (H, W, 3), RGB, full range; all of one size.

    Raises:
        UserError: missing, unreadable, no video stream, no frame decodes, an empty folder, frames of several sizes, two
            files for one frame.
    """
    if is_folder(uri):
        frames = _folder_frames(uri, start, stop)
    else:
        frames = islice(_video_frames(uri, damaged or (lambda _: None)), start, stop)
    size: tuple[int, ...] | None = None
    for number, frame in enumerate(frames, start):
        if size is not None and frame.shape != size:
            raise UserError(
                f"{uri}: frame {number} is {frame.shape[1]}x{frame.shape[0]}, those before are {size[1]}x{size[0]}; "
                "all frames of a clip must have one size"
            )
        size = frame.shape
        yield frame


@dataclass
class _Progress:
    """How far a video's decoding got.

    Attributes:
        error: that ended it.
        end: of the last packet's frame, seconds.
        marred: the first frame that is marked as damaged.
    """

    error: av.FFmpegError | None = None
    end: Fraction = field(default_factory=Fraction)
    marred: int | None = None


def _video_frames(uri: str, damaged: Callable[[str], None]) -> Iterator[Frame]:
    with open_video(uri) as (container, stream):
        progress = _Progress()
        told, count = False, 0
        for _, picture in progressive(_decoded(uri, container.demux(stream), progress)):
            if progress.marred is not None and not told:
                damaged(f"damaged: frame {progress.marred}, and perhaps some after it")
                told = True
            yield to_rgb(picture)
            count += 1
        missing = _missing(container, stream, progress, count)
    error = progress.error
    if count == 0 and error is not None:
        raise UserError(f"{uri}: not one frame of it can be decoded ({error.strerror})") from error
    if count == 0:
        raise UserError(f"{uri}: holds no video frame that can be decoded")
    if error is not None:
        _logger.warning("%s: cannot be decoded beyond its first %d frames (%s)", uri, count, error.strerror)
    if missing:
        damaged(missing)


def _missing(container: Any, stream: Any, progress: _Progress, count: int) -> str:
    """What a video lacks of which ``count`` frames came; empty if nothing is known to be missing."""
    promised = ""
    if stream.frames > count:
        promised = f" of the {stream.frames} that its header promises"
    # Matroska's header has no count, but a duration; of all streams together.
    elif "matroska" in container.format.name and len(container.streams) == 1 and container.duration:
        duration, rate = Fraction(container.duration, av.time_base), stream.average_rate or DEFAULT_RATE
        if duration - progress.end > 2 / rate:
            promised = f", {float(progress.end):.2f} s of the {float(duration):.2f} s that its header promises"
    if progress.error is not None:
        return f"damaged: decoding stopped after {count} frames{promised} ({progress.error.strerror})"
    return f"damaged or cut off: only {count} frames decoded{promised}" if promised else ""


def _decoded(uri: str, packets: Iterable[Any], progress: _Progress) -> Iterator[NumberedPicture]:
    """All frames up to the first error; ``progress`` is kept up."""
    count = 0
    try:
        for packet in packets:
            check_not_encrypted(packet, uri)
            if packet.pts is not None:
                progress.end = max(progress.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            for picture in packet.decode():
                if picture.is_corrupt and progress.marred is None:
                    progress.marred = count
                yield NumberedPicture(count, picture)
                count += 1
    except av.FFmpegError as error:
        progress.error = error


def _folder_frames(uri: str, start: int, stop: int | None) -> Iterator[Frame]:
    files = frame_files(uri)
    if not files:
        raise UserError(f"{uri}: a folder without PNG or JPEG frames")
    for file in files[start:stop]:
        try:
            data = storage.read_bytes(file)
        except OSError as error:
            raise UserError(f"{file}: not a picture that can be read ({error})") from error
        yield to_frame(data, file)
