"""Video files opened by URI: PyAV's containers over any storage."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.codec.context import Flags

from mana_dist import storage
from mana_dist.errors import UserError

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mxf", ".y4m", ".264", ".h264", ".265", ".h265", ".hevc", ".ivf"),
)
DEFAULT_RATE = Fraction(25)
"""Frames per second where a source states none: folders of frames and raw streams."""

ALONE = {"protocol_whitelist": "none"}
"""FFmpeg's options for a file from anywhere: FFmpeg opens no other file and no address that it names."""

_NAMES_OTHERS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD")  # playlists (HLS, DASH), scripts, sessions (SDP)
_EBML = b"\x1a\x45\xdf\xa3"
_CROP = re.compile(rb"\x54[\xaa\xbb\xcc\xdd][\x81-\x84]")  # Matroska's elements PixelCropBottom to PixelCropRight
_HEAD = 1 << 16  # bytes, which hold the description of the tracks as a rule


UNREADABLE = (av.FFmpegError, IndexError)
"""Exceptions of PyAV if no packet can be read; IndexError for a stream that begins after the file's header."""


@contextmanager
def open_input(uri: str, *, stored_times: bool = False) -> Iterator[tuple[Any, Any]]:
    """Open a file: PyAV's container, and its first video stream but cover pictures, decoded in the caller's thread.

    Args:
        uri: the file.
        stored_times: whether packets have the times that the file holds, without those that FFmpeg guesses.

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
    with file, _Input(file).raising_failures() as input_:
        try:
            options = ALONE | ({"fflags": "nofillin"} if stored_times else {})
            container = av.open(input_, metadata_errors="replace", options=options)
        except av.FFmpegError as error:
            raise UserError(f"{uri}: not a video that can be read ({_reason(error, file)})") from error
        with container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise UserError(f"{uri}: has no video stream")
            if streams[0].codec_context is None:
                raise UserError(f"{uri}: no decoder for its video stream")
            # Else a crop that the codec has on the left is only made as far as suits the processor.
            streams[0].codec_context.flags |= Flags.unaligned
            streams[0].codec_context.thread_type = "NONE"
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]


def check_not_encrypted(packet: Any, uri: str) -> None:
    """Check that a packet is not encrypted, which would look like damage.

    Raises:
        UserError: this PyAV packet of the file at ``uri`` is encrypted.
    """
    if packet.has_sidedata("encryption_info"):
        raise UserError(f"{uri}: is encrypted (DRM); only videos that are not can be read")


def promised_packets(container: Any, stream: Any, packets: int, end: int) -> int:
    """Return how many packets a stream should have by its container, which was read; ``packets`` if it is whole.

    What an edit list hides counts, frames that were never coded do not.

    Args:
        container: PyAV's.
        stream: PyAV's.
        packets: how many were found, those that are hidden with them.
        end: when the last of them ends, in the stream's units.
    """
    if "mp4" in container.format.name:  # its index says more than the header, which counts what an edit list cuts away
        return max(packets, sum(entry.size > 0 for entry in stream.index_entries))
    if container.format.name == "avi":  # its header counts the frames that were never coded too, and so does the time
        return packets + max(0, int(stream.frames) - end)
    return max(packets, int(stream.frames))


def frame_rate(stream: Any) -> Fraction:
    """Return the frames per second of a PyAV video stream, on average; :data:`DEFAULT_RATE` where nothing says so."""
    return Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def decoded_at(packet: Any) -> int | None:
    """Return when a packet is decoded, in ticks; if that is not stored, when it is shown."""
    time = packet.dts if packet.dts is not None else packet.pts
    return time if time is None else int(time)


class _Input:
    """A file for FFmpeg's callbacks: a seek before its beginning, which damaged headers cause, returns -1.

    FFmpeg takes a failed read for the end of the file. So the failure is remembered, and the file ends there.
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
    def raising_failures(self) -> Iterator["_Input"]:
        """Raise a failure of the file, if there was one, in place of whatever leaves the context."""
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


def _reason(error: av.FFmpegError, file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(_HEAD)
    if head.startswith(_NAMES_OTHERS):
        return "a list of other files, which are not opened; name the videos themselves"
    if head.startswith(_EBML) and _CROP.search(head):  # FFmpeg refuses them without a word
        return (
            "if nothing else is wrong with it, its crop flags cut away the whole picture; delete them: mkvpropedit "
            "FILE --edit track:v1 -d pixel-crop-left -d pixel-crop-right -d pixel-crop-top -d pixel-crop-bottom"
        )
    return str(error.strerror)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
