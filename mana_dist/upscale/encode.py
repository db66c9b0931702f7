"""The encoder of a segment, which writes the same bytes on every machine."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av

from mana_dist import storage
from mana_dist.model.inference import Pixels
from mana_dist.storage.file_names import partial_prefix
from mana_dist.upscale.config import CODECS, Settings
from mana_dist.upscale.segment_record import PacketOrder
from mana_dist.video.colours import Colours, tag, to_picture
from mana_dist.video.priority import no_real_time

INDEX_BASE = Fraction(1, 1000)
"""Time base of the segments' packets: their timestamp is the frame's number, and Matroska counts milliseconds."""

# Threads change the bits that the encoders write, so their number is not that of the cores.
_FORMATS = {".mkv": "matroska", ".nut": "nut"}
_THREADS = 4
_MOST_REORDERED = 32  # frames; no encoder gives a packet later than this after its turn
_RATES = (Fraction(1), Fraction(240))  # that all encoders take


def suffix_of(settings: Settings) -> str:
    """Return the suffix of a segment's file: Matroska's, or NUT's for PNG, which Matroska does not take."""
    return ".nut" if settings.codec == "png" else ".mkv"


class Encoder:
    """The encoder of frames into a file."""

    def __init__(
        self, path: str, settings: Settings, bits: int, rate: Fraction, colours: Colours, pixel_aspect: Fraction
    ) -> None:
        """Make the file.

        Args:
            path: local.
            settings: codec, quality and speed.
            bits: bits of a sample, 8 or 10.
            rate: frames per second; the encoders' idea of quality depends on it a little.
            colours: colours of the frames to come.
            pixel_aspect: pixel aspect of these frames.
        """
        self.frames = self._reorder = self._packets = self._last_index = 0
        self.width = self.height = 0
        self._colours, self._pixel_aspect = colours, pixel_aspect
        traits = settings.traits
        self._delay = 0 if traits.crf is None else _MOST_REORDERED
        self._format = traits.formats[10 if bits > 8 and 10 in traits.formats else 8]
        os.environ.setdefault("SVT_LOG", "1")  # errors alone: SVT-AV1 writes a page to the console for each encoder
        # Without random identifiers, so that the same frames give the same file.
        self._container = av.open(path, "w", format=_FORMATS[suffix_of(settings)], options={"fflags": "+bitexact"})
        rate = min(max(rate, _RATES[0]), _RATES[1]).limit_denominator(1001)
        options = _options(settings)
        if self._format.startswith("yuv"):
            options["chroma_sample_location"] = "left"  # where to_picture puts it
        self._stream: Any = self._container.add_stream(traits.encoder, rate=rate, options=options)
        self._stream.codec_context.time_base = 1 / rate
        self._stream.codec_context.thread_count = _THREADS

    def add(self, pixels: Pixels) -> None:
        """Append a frame, (H, W, 3) uint8 or uint16 RGB."""
        if self.frames == 0:
            self._lay_out(pixels)
        picture = to_picture(pixels, self._format, self._colours)
        context = self._stream.codec_context
        picture.pts, picture.time_base = self.frames, context.time_base
        self.frames += 1
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder still holds, and close the file; at least one frame must have been added."""
        self._mux(self._stream.encode(None))
        self._container.close()

    @property
    def order(self) -> PacketOrder:
        """The order of the packets so far, against that of the frames."""
        return PacketOrder(self._reorder, self.frames - 1 - self._last_index)

    def abandon(self) -> None:
        """Close the file, whatever is in it."""
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._reorder = max(self._reorder, self._packets - packet.pts)
            self._last_index = packet.pts
            packet.time_base = INDEX_BASE
            # x265 takes it from memory that nobody wrote, where there are fewer frames than it looks ahead.
            packet.dts = self._packets - self._delay
            self._packets += 1
            self._container.mux(packet)

    def _lay_out(self, pixels: Pixels) -> None:
        self.height, self.width = pixels.shape[:2]
        context = self._stream.codec_context
        self._stream.height, self._stream.width = pixels.shape[:2]
        self._stream.pix_fmt = self._format
        context.sample_aspect_ratio = self._pixel_aspect
        tag(context, self._colours, rgb=not self._format.startswith("yuv"))
        with no_real_time():
            context.open()


@contextmanager
def published(uri: str, folder: str | None = None, check: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Yield a local path to write to; the file appears at ``uri``, whole, if the context is left without an exception.

    Args:
        uri: where it appears.
        folder: local, for the unfinished file, on the file system of ``uri`` if that is local too; by default the one
            of ``uri``, or the machine's for temporary files.
        check: called just before the file appears; what it raises keeps it away.

    Raises:
        OSError: it cannot be written.
    """
    remote = storage.is_remote(uri)
    resolved = storage.resolve(uri)
    folder = folder or (tempfile.gettempdir() if remote else os.path.dirname(resolved))
    suffix = os.path.splitext(resolved)[1]
    handle, partial = tempfile.mkstemp(suffix, partial_prefix(os.path.basename(resolved)), folder)
    os.close(handle)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # a full disk may show only now
            if remote:
                with storage.open_write(uri) as stream:
                    shutil.copyfileobj(file, stream, 1 << 20)
                    check()
        if not remote:
            check()
            os.chmod(partial, 0o644)
            os.replace(partial, resolved)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _options(settings: Settings) -> dict[str, str]:
    traits = CODECS[settings.codec]
    options: dict[str, str] = {}
    if traits.crf is not None:
        options["crf"] = str(traits.crf if settings.crf is None else settings.crf)
    if traits.presets:
        options["preset"] = settings.preset or traits.preset
    if settings.codec == "h264":
        # x264's macroblock tree reads memory that nobody wrote, where the width is no multiple of 128.
        options["mbtree"] = "0"
    elif settings.codec == "hevc":
        # Closed groups, so that players and mana_dist can begin at each; no line on the console; no word about the CPU.
        options["x265-params"] = f"open-gop=0:info=0:log-level=none:pools={_THREADS}:frame-threads=2"
    elif settings.codec == "av1":
        options["svtav1-params"] = f"lp={_THREADS}"
    elif settings.codec == "ffv1":
        options |= {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}
    return options
