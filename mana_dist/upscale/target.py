"""Writing the upscaled video: H.264 at the source's timestamps, and the audio packets as they were."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.video.reformatter import ColorRange, Colorspace

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.inference import Frame
from mana_dist.upscale.source import Source, TimedFrame

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffix -> ffmpeg's container
_BT709, _UNSPECIFIED = 1, 2  # in ffmpeg's numbers of primaries and transfers


class Target:
    """An output file that is being written."""

    def __init__(self, container: Any, source: Source, crf: int) -> None:
        """Streams are laid out with the first frame, since only that tells the upright size.

        Args:
            container: PyAV's, opened for writing.
            source: gives time base, rate and audio streams.
            crf: x264's constant rate factor, 0 to 51; less is better and larger.
        """
        self.frames = 0
        self._container = container
        self._source = source
        self._crf = crf
        self._video: Any = None
        self._audio: dict[int, Any] = {}  # source stream index -> ours
        self._early: list[Any] = []  # audio packets that came before the first frame
        self._last_pts: int | None = None
        kept = [stream for stream in source.audio if _codec_name(stream) in container.supported_codecs]
        self._kept_audio = kept
        self.dropped_audio = [_codec_name(stream) for stream in source.audio if stream not in kept]

    def write_frame(self, pixels: Frame, source: TimedFrame) -> None:
        """Append a super-resolved frame, (H, W, 3) uint8 RGB, at the time of its source frame."""
        if self._video is None:
            self._lay_out(pixels, source)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        # Broken files repeat timestamps, which no encoder takes.
        frame.pts = source.pts if self._last_pts is None else max(source.pts, self._last_pts + 1)
        frame.time_base = self._source.time_base
        self._last_pts = frame.pts
        self._container.mux(self._video.encode(frame))
        self.frames += 1

    def write_audio(self, packet: Any) -> None:
        """Append an audio packet of the source, unchanged; those of streams that cannot be kept are dropped."""
        if self._video is None:
            self._early.append(packet)
        elif packet.stream.index in self._audio:
            packet.stream = self._audio[packet.stream.index]
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._video is not None:
            self._container.mux(self._video.encode(None))

    def _lay_out(self, pixels: Frame, source: TimedFrame) -> None:
        video = self._container.add_stream("libx264", rate=self._source.rate, options={"crf": str(self._crf)})
        video.height, video.width = pixels.shape[:2]
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        video.time_base = context.time_base = self._source.time_base
        context.sample_aspect_ratio = source.pixel_aspect
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        told = (source.primaries, source.transfer)
        context.color_primaries, context.color_trc = (_BT709 if value == _UNSPECIFIED else value for value in told)
        self._audio = {stream.index: self._container.add_stream_from_template(stream) for stream in self._kept_audio}
        self._video = video
        for packet in self._early:
            self.write_audio(packet)
        self._early.clear()


def check_destination(destination: str, source: str) -> None:
    """Whether the result could be written, before any work is done.

    Raises:
        UserError: unknown suffix, the source itself, or a folder that is missing or cannot be written.
    """
    suffix = os.path.splitext(destination)[1].lower()
    if suffix not in FORMATS:
        raise UserError(f"{destination}: unknown kind of video {suffix or '(no suffix)'}; use {', '.join(FORMATS)}")
    resolved = storage.resolve(destination)
    if resolved == storage.resolve(source) or (
        os.path.exists(resolved) and os.path.exists(source) and os.path.samefile(resolved, source)
    ):
        raise UserError(f"{destination}: is the source itself; name another file")
    if storage.is_remote(destination):
        return
    folder = os.path.dirname(resolved)
    if not os.path.isdir(folder):
        raise UserError(f"{destination}: there is no folder {folder}; make it first")
    if os.path.isdir(resolved):
        raise UserError(f"{destination}: is a folder; name a file")
    storage.check_writable(folder, destination)


@contextmanager
def open_target(destination: str, source: Source, crf: int) -> Iterator[Target]:
    """Open the output; it appears under its name, whole, when the context is left without an exception.

    Raises:
        UserError: it cannot be written.
    """
    suffix = os.path.splitext(destination)[1].lower()
    remote = storage.is_remote(destination)
    resolved = storage.resolve(destination)
    folder = tempfile.gettempdir() if remote else os.path.dirname(resolved)
    partial = os.path.join(folder, f".{os.path.basename(resolved)}.partial-{uuid.uuid4().hex[:8]}{suffix}")
    try:
        with av.open(partial, "w", format=FORMATS[suffix], options=_options(suffix, source)) as container:
            target = Target(container, source, crf)
            yield target
            target.finish()
        _publish(partial, destination)
    except (OSError, av.FFmpegError) as error:
        raise UserError(f"{destination}: cannot be written ({error.strerror or error})") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _options(suffix: str, source: Source) -> dict[str, str]:
    if FORMATS[suffix] == "matroska":
        return {}
    # A start later than 0 is told in ticks of the file, by default milliseconds: too coarse for most time bases.
    ticks = source.time_base.denominator
    return {"movflags": "+faststart", "movie_timescale": str(ticks * -(-1000 // ticks))}


def _publish(partial: str, destination: str) -> None:
    if not storage.is_remote(destination):
        os.replace(partial, storage.resolve(destination))
        return
    with open(partial, "rb") as local, storage.open_write(destination) as stream:
        shutil.copyfileobj(local, stream, 1 << 20)


def _codec_name(stream: Any) -> str:
    name: str = stream.codec_context.codec.canonical_name
    return name
