"""Reading video files and folders of frames as streams of RGB frames.

Colours: a video's matrix and range are taken as its file tags them. An untagged matrix is BT.709 from 720 coded lines
on, else BT.601; an untagged range is limited. Primaries and transfer are left as coded; alpha is dropped.
"""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from mana_dist import storage
from mana_dist.data.damage_signs import errors_heard
from mana_dist.data.orientation import upright
from mana_dist.data.pictures import check_one_file_each, natural_key, to_frame
from mana_dist.data.progressive import NumberedPicture, progressive
from mana_dist.errors import UserError

Frame = NDArray[np.uint8]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mxf", ".y4m", ".264", ".h264", ".265", ".h265", ".hevc", ".ivf"),
)
FRAME_SUFFIXES = (".png", ".jpg", ".jpeg")
DEFAULT_RATE = Fraction(25)
"""Frames per second taken where none is told: for folders of frames and raw streams."""

_HD_LINES = 720
_UNTAGGED = 2  # ffmpeg's number of an unspecified matrix
# Without these flags more than 8 bits come out up to 3 levels too dark.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

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


class Opened(NamedTuple):
    """An opened video.

    Attributes:
        container: PyAV's.
        stream: PyAV's, of the video.
        doubtful: whether errors came up in what was read of it.
    """

    container: Any
    stream: Any
    doubtful: bool


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


def is_folder(uri: str) -> bool:
    """Whether ``uri`` is a folder.

    Raises:
        UserError: the storage cannot be reached.
    """
    try:
        return storage.is_folder(uri)
    except OSError as error:
        raise UserError(f"{uri}: cannot be read ({error})") from error


@contextmanager
def open_video(uri: str) -> Iterator[tuple[Any, Any]]:
    """The PyAV container of the file at ``uri`` and its first video stream that is no cover picture.

    Raises:
        UserError: missing, unreadable, no video stream; the storage failed, then or while the file was read.
    """
    try:
        # Nobody may listen to what FFmpeg logs while it decodes with threads of its own: each line waits for Python's
        # lock, and a decoder that is freed under that lock waits for its threads, for ever.
        with open_input(uri, listen=False) as opened:
            opened.stream.codec_context.thread_count = 0  # as many as there are cores
            opened.stream.thread_type = "AUTO"
            yield opened.container, opened.stream
    except OSError as error:
        if isinstance(error, av.FFmpegError):
            raise  # of the decoder, in the caller's hands
        raise UserError(f"{uri}: cannot be read ({error})") from error


@contextmanager
def open_input(uri: str, *, listen: bool = True) -> Iterator[Opened]:
    """As :func:`open_video`, for callers that try again when a storage fails; decodes in the caller's thread alone.

    Args:
        uri: the file.
        listen: whether errors that FFmpeg logs while it reads the header make the file doubtful.

    Raises:
        UserError: missing, not to be read by this user, no video stream.
        OSError: the storage failed, then or while the file was read: what FFmpeg made of that is not to be trusted.
    """
    try:
        file = storage.open_read(uri)
    except FileNotFoundError as error:
        raise UserError(f"{uri}: no such file or folder") from error
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"{uri}: cannot be read ({error})") from error
    with file, _Input(file).told_of_failures() as input_:
        try:
            with errors_heard() if listen else nullcontext(list[str]()) as errors:
                container = av.open(input_, metadata_errors="replace")
        except av.FFmpegError as error:
            raise UserError(f"{uri}: not a video that can be read ({error.strerror})") from error
        with container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise UserError(f"{uri}: has no video stream")
            if streams[0].codec_context is None:
                raise UserError(f"{uri}: no decoder for its video stream")
            streams[0].codec_context.thread_type = "NONE"
            streams[0].codec_context.thread_count = 1
            yield Opened(container, streams[0], bool(errors))


def check_not_encrypted(packet: Any, uri: str) -> None:
    """Tell DRM from damage.

    Raises:
        UserError: this PyAV packet of the file at ``uri`` is encrypted.
    """
    if packet.has_sidedata("encryption_info"):
        raise UserError(f"{uri}: is encrypted (DRM); only videos that are not can be read")


def to_rgb(frame: Any) -> Frame:
    """A decoded PyAV frame's pixels, upright: the one way from a video's colours to ours.

    Matrix and range are those tagged in the file. Untagged: BT.709 where the frame, as coded, has 720 lines or more,
    else BT.601; limited range unless tagged full. The display matrix's rotation and mirroring are applied.

    Returns:
        uint8 (H, W, 3), RGB, full range.
    """
    matrix = None  # as tagged
    if frame.colorspace == _UNTAGGED and not frame.format.is_rgb:
        matrix = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT if frame.format.components[0].bits > 8 else None,
        threads=1,  # else it starts one per core for every frame
    )
    return upright(rgb.to_ndarray(), frame)


def clip_name(uri: str) -> str:
    """A short name for people, of the URI alone: a video's file name without its suffix, a folder's name."""
    name = _base(uri.rstrip("/"))
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def frame_files(uri: str) -> list[str]:
    """The URIs of the PNG and JPEG files directly in the folder ``uri``, by name, numbers in names by value.

    Raises:
        UserError: two of them differ in their suffix alone.
        OSError: the folder cannot be read.
    """
    files = [file for file in storage.files_in(uri) if file.lower().endswith(FRAME_SUFFIXES)]
    shown = [file for file in files if not _base(file).startswith(".")]
    check_one_file_each(uri, map(_base, shown))
    return sorted(shown, key=lambda file: natural_key(_base(file)))


def parse_frame_range(text: str) -> tuple[int, int | None]:
    """A range of frames: ``100:132`` -> (100, 132), ``100:`` -> (100, None), ``:100`` -> (0, 100).

    Raises:
        UserError: not such a range, or an empty one.
    """
    match = re.fullmatch(r"(\d*):(\d*)", text.strip())
    if match is None:
        raise UserError(f"frame range {text!r}: write START:STOP, START: or :STOP, like 0:100 (STOP itself excluded)")
    start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise UserError(f"frame range {text!r} is empty: STOP must be greater than START")
    return start, stop


class _Input:
    """A file as FFmpeg's callbacks want it: a seek before its beginning, as damaged headers ask for, gives -1.

    FFmpeg takes a read that fails for the end of the file. So a failure is remembered, and the file ends there.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.tell = file, file.tell
        self._failure: OSError | None = None
        self.name = str(getattr(file, "name", ""))

    def read(self, size: int) -> bytes:
        try:
            return b"" if self._failure else self._file.read(size)
        except OSError as error:
            self._failure = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except ValueError:
            return -1
        except OSError as error:
            if error.errno != errno.EINVAL:
                self._failure = error
            return -1

    @contextmanager
    def told_of_failures(self) -> Iterator["_Input"]:
        """A failure of the file takes the place of whatever comes out of the context."""
        try:
            yield self
        except GeneratorExit:
            raise
        except BaseException as error:
            if self._failure is not None:
                raise self._failure from error
            raise
        if self._failure is not None:
            raise self._failure


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


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


def _base(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
