"""What a video file holds beside its pictures: copied as it is, packet by packet."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from mana_dist.upscale.jumps import Clock
from mana_dist.upscale.left_out import tags_of
from mana_dist.upscale.packets import decoded_at

MATROSKA = "matroska"
_COPIED = ("audio", "subtitle")
# What a number of channels means where nothing else is told; mp4 takes no PCM without it.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_SOME_PCM = bytes(24 * 64)  # whole samples of all formats, of up to 8 channels


class Copies:
    """The streams of a source that go into a target.

    Attributes:
        indices: of the target's streams, by those of the source's that are copied; attachments too.
    """

    def __init__(self, source: Any, video: Any, target: Any, clock: Clock) -> None:
        """Lay out streams in ``target``, after its video's, and copy chapters and tags.

        Args:
            source: PyAV's container, opened for reading.
            video: its stream that is not copied.
            target: PyAV's container, nothing written to it yet.
            clock: of the source.
        """
        self.indices: dict[int, int] = {}
        self._source, self._target = source, target
        # An mp4's edit list hides packets, like an encoder's first; Matroska has none, and would play them.
        self._plays_all = target.format.name == MATROSKA
        self._streams: dict[int, Any] = {}
        for stream in source.streams:
            copy = _copy(stream, target) if stream.index != video.index else None
            if copy is not None:
                self.indices[stream.index] = copy.index
                if stream.type != "attachment":  # these are in the header
                    self._streams[stream.index] = copy
        self._clocks = {index: clock.packets(index) for index in self._streams}
        self._offset = clock.epochs[0].offset
        target.set_chapters(list(self._chapters()))
        target.metadata.update(tags_of(source))

    def packets(self) -> Iterator[tuple[Fraction, Any]]:
        """Times in seconds to sort by, and packets to mux, in the file's order, up to the first that cannot be read.

        Into Matroska without those that the source's container hides. Times that go back or are there twice follow
        those before by a tick, since containers take no others.
        """
        if not self._streams:
            return
        packets = self._source.demux(*(self._source.streams[index] for index in self._streams))
        before: dict[int, int | None] = {}
        last: dict[int, int] = {}
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                return
            if packet is None:
                return
            # The demuxer's end mark holds no data.
            if not packet.size or (packet.dts is None and packet.pts is None):
                continue
            index = packet.stream_index
            if self._plays_all and packet.is_discard and not self._is_repeated(packet, before.get(index)):
                continue
            before[index] = packet.dts
            packet.stream = self._streams[index]
            packet = self._timed(packet, self._clocks[index].offset(packet), last.get(index))
            last[index] = packet.dts
            yield packet.dts * packet.time_base, packet

    def _is_repeated(self, packet: Any, before: int | None) -> bool:
        """Whether a hidden packet is hidden since its time was there before, as in fragments, and not by an edit list.

        A file of fragments has no count of packets in its header.
        """
        repeated = before is not None and packet.dts is not None and packet.dts <= before
        return repeated and not self._source.streams[packet.stream_index].frames

    def _timed(self, packet: Any, offset: Fraction, last: int | None) -> Any:
        """A packet in its target's ticks, after the ``last``."""
        tick = Fraction(packet.stream.time_base)
        ratio, moved = Fraction(packet.time_base) / tick, offset / tick
        pts, dts = (round((old or 0) * ratio + moved) for old in (packet.pts, decoded_at(packet)))
        dts = dts if last is None else max(dts, last + 1)
        packet.duration = round((packet.duration or 0) * ratio)
        packet.time_base = tick
        packet.pts, packet.dts = dts if packet.pts is None else max(pts, dts), dts
        return packet

    def _chapters(self) -> Iterator[dict[str, Any]]:
        for chapter in self._source.chapters():
            moved = round(self._offset / chapter["time_base"])
            yield chapter | {"start": chapter["start"] + moved, "end": chapter["end"] + moved}


def is_taken(stream: Any, container: str) -> bool:
    """Whether a container takes a stream of a source."""
    if stream.type == "attachment":
        return container == MATROSKA
    if stream.type not in _COPIED:
        return False
    with _parameters(stream) as found:
        return any(_is_taken(parameters, stream, container) for parameters in found)


def copy_tags(source: Any, target: Any) -> None:
    """A stream's tags, like its language, and its disposition."""
    target.metadata.update(tags_of(source))
    target.disposition = source.disposition


def _copy(stream: Any, target: Any) -> Any | None:
    if stream.type == "attachment":
        return target.add_stream_from_template(stream) if target.format.name == MATROSKA else None
    if stream.type not in _COPIED:
        return None
    with _parameters(stream) as found:
        for parameters in found:
            if _is_taken(parameters, stream, target.format.name):
                copy = _added(parameters, stream, target)
                copy_tags(stream, copy)
                return copy
    return None


@contextmanager
def _parameters(stream: Any) -> Iterator[list[Any]]:
    """Streams that have the codec's parameters: without its tag in the source's container, then with it."""
    if stream.codec_context is None:
        yield [stream]
        return
    with av.open(io.BytesIO(), "w", format="null") as nowhere:
        copy = nowhere.add_stream_from_template(stream, opaque=True)
        if stream.type == "audio" and stream.layout.name.endswith(" channels") and stream.channels in _LAYOUTS:
            copy.codec_context.layout = _LAYOUTS[stream.channels]
        nowhere.start_encoding()
        yield [copy, stream]


def _is_taken(parameters: Any, stream: Any, container: str) -> bool:
    """Whether a container takes a stream, tried with a file of its own: a list of codecs does not tell.

    A muxer may know a codec and refuse it nevertheless, and with it all that is in the file.
    """
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            copy = _added(parameters, stream, trial)
            trial.start_encoding()
            if stream.type == "audio" and stream.codec_context and stream.codec_context.name.startswith("pcm_"):
                packet = av.Packet(_SOME_PCM)  # some of it is refused at the file's end alone
                packet.pts = packet.dts = 0
                packet.stream, packet.time_base = copy, copy.time_base
                trial.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _added(parameters: Any, stream: Any, target: Any) -> Any:
    """A stream for packets of ``stream``; PyAV's own way refuses codecs that Matroska takes under a tag of Windows."""
    copy = target.add_data_stream()
    BitStreamFilterContext("null", in_stream=parameters, out_stream=copy)
    copy.time_base = stream.time_base
    return copy
