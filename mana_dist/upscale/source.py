"""Reading a video for upscaling: its frames with their timestamps, and its audio packets untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.inference import Frame

# Files that do not tell their colour matrix are shown as BT.709 from this height on, and as BT.601 below it.
HD_HEIGHT = 577
_UNSPECIFIED = 2  # in ffmpeg's numbers of matrices, primaries and transfers


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, full range, upright.
        pts: presentation time in the stream's time base.
        pixel_aspect: width over height of one pixel.
        primaries: of the colours, ffmpeg's number.
        transfer: of the brightness, ffmpeg's number; pixels are as coded, so HDR stays HDR.
    """

    pixels: Frame
    pts: int
    pixel_aspect: Fraction
    primaries: int
    transfer: int


class Source:
    """An opened video."""

    def __init__(self, container: Any, uri: str) -> None:
        """Take the first video stream that is no cover picture.

        Raises:
            UserError: there is none.
        """
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            raise UserError(f"{uri}: has no video stream")
        self.uri = uri
        self._container = container
        self._video = streams[0]
        self._video.thread_type = "AUTO"
        self.audio: list[Any] = list(container.streams.audio)

    @property
    def frames(self) -> int | None:
        """Number of frames by the header; None if it does not tell."""
        return self._video.frames or None

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the frames' timestamps."""
        return Fraction(self._video.time_base)

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average."""
        return Fraction(self._video.average_rate or self._video.guessed_rate or 25)

    def read(self) -> Iterator[Any]:
        """What the file holds, in its order: :class:`TimedFrame`, and PyAV packets of the audio streams.

        Raises:
            UserError: a frame cannot be decoded, or there is not one.
        """
        count = 0
        ticks_per_frame = 1 / (self.rate * self.time_base)
        try:
            for packet in self._container.demux(self._video, *self.audio):
                if packet.stream.type != "video":
                    if packet.dts is not None:  # the demuxer's end mark holds no data
                        yield packet
                    continue
                for frame in packet.decode():
                    # Elementary streams have no timestamps.
                    pts = frame.pts if frame.pts is not None else round(count * ticks_per_frame)
                    yield self._timed(frame, pts)
                    count += 1
        except av.FFmpegError as error:
            raise UserError(f"{self.uri}: cannot be decoded beyond frame {count} ({error.strerror})") from error
        if count == 0:
            raise UserError(f"{self.uri}: holds no video frame that can be decoded")

    def _timed(self, frame: Any, pts: int) -> TimedFrame:
        aspect = Fraction(self._video.sample_aspect_ratio or 1)
        if _quarter_turns(frame) % 2:
            aspect = 1 / aspect
        primaries, transfer = (value or _UNSPECIFIED for value in (frame.color_primaries, frame.color_trc))
        return TimedFrame(_upright_rgb(frame), pts, aspect, primaries, transfer)


@contextmanager
def open_source(uri: str) -> Iterator[Source]:
    """Open a video by its URI.

    Raises:
        UserError: missing, unreadable or without a video stream.
    """
    try:
        if storage.is_folder(uri):
            raise UserError(f"{uri}: is a folder; name a video file")
        stream = storage.open_read(uri)
    except FileNotFoundError as error:
        raise UserError(f"{uri}: no such file") from error
    except OSError as error:
        raise UserError(f"{uri}: cannot be read ({error})") from error
    with stream:
        try:
            container = av.open(stream)
        except av.FFmpegError as error:
            raise UserError(f"{uri}: not a video that can be read ({error.strerror})") from error
        with container:
            yield Source(container, uri)


def _upright_rgb(frame: Any) -> Frame:
    hd = min(frame.width, frame.height) >= HD_HEIGHT
    guessed = Colorspace.ITU709 if hd else Colorspace.ITU601
    told = frame.colorspace != _UNSPECIFIED
    rgb = frame.reformat(format="rgb24", src_colorspace=None if told else guessed, dst_color_range=ColorRange.JPEG)
    turns = _quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), turns))


def _quarter_turns(frame: Any) -> int:
    """Of the display matrix, counterclockwise as np.rot90 counts them."""
    return round(frame.rotation / 90) % 4
