"""Reading a video for upscaling: its frames with their timestamps, and its audio packets untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from mana_dist.data.video import DEFAULT_RATE, is_folder, open_video, quarter_turns, to_rgb
from mana_dist.errors import UserError
from mana_dist.inference import Frame

_UNSPECIFIED = 2  # in ffmpeg's numbers of primaries and transfers


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, full range, upright, as :func:`mana_dist.data.video.to_rgb` makes them.
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

    def __init__(self, container: Any, video: Any, uri: str) -> None:
        """Of an opened container and the video stream in it to read."""
        self.uri = uri
        self._container = container
        self._video = video
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
        return Fraction(self._video.average_rate or self._video.guessed_rate or DEFAULT_RATE)

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
        if quarter_turns(frame) % 2:
            aspect = 1 / aspect
        primaries, transfer = (value or _UNSPECIFIED for value in (frame.color_primaries, frame.color_trc))
        return TimedFrame(to_rgb(frame), pts, aspect, primaries, transfer)


@contextmanager
def open_source(uri: str) -> Iterator[Source]:
    """Open a video by its URI.

    Raises:
        UserError: missing, unreadable or without a video stream.
    """
    if is_folder(uri):
        raise UserError(f"{uri}: is a folder; name a video file")
    with open_video(uri) as (container, video):
        yield Source(container, video, uri)
