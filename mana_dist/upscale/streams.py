"""Sound, subtitles, chapters and tags of a video file, copied packet by packet."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from mana_dist.upscale.jumps import Clock
from mana_dist.upscale.left_out import codec_of, tags_of
from mana_dist.video.containers import UNREADABLE, decoded_at, open_input

MATROSKA = "matroska"
# Layouts of channels if a file states none; mp4 takes no PCM without it.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_SAMPLED = 1000  # packets of a file in which the first of each stream is looked for
_REFUSED = (av.ArgumentError, av.InvalidDataError, av.PatchWelcomeError)
"""Exceptions of muxers for a packet that they do not take."""


class Copies:
    """The streams of a source that go into a target.

    Attributes:
        indices: indices of the target's streams, by those of the source's that are copied; attachments too.
        refused: how many packets of each of the source's streams the target did not take.
    """

    def __init__(self, source: Any, video: Any, target: Any, clock: Clock, samples: Mapping[int, bytes]) -> None:
        """Lay out streams in ``target``, after its video's, and copy chapters and tags.

        Args:
            source: PyAV's container, opened for reading.
            video: its stream that is not copied.
            target: PyAV's container, nothing written to it yet.
            clock: clock of the source.
            samples: see :func:`samples_of`.
        """
        self.indices: dict[int, int] = {}
        self.refused: Counter[int] = Counter()
        self._source, self._target, self._samples = source, target, samples
        # An mp4's edit list hides packets, like an encoder's first; Matroska has none, and would play them.
        self._plays_all = target.format.name == MATROSKA
        self._streams: dict[int, Any] = {}
        for stream in source.streams:
            copy = _copy(stream, target, samples.get(stream.index)) if stream.index != video.index else None
            if copy is not None:
                self.indices[stream.index] = copy.index
                if stream.type != "attachment":  # these are in the header
                    self._streams[stream.index] = copy
        self._clocks = {index: clock.packets(index) for index in self._streams}
        self._offset = clock.epochs[0].offset
        target.set_chapters(list(self._chapters()))
        target.metadata.update(tags_of(source))

    def mux(self, packet: Any) -> None:
        """Write a packet of :meth:`packets`, or count it where it is not taken: one must not take all others down."""
        index = packet.stream_index
        try:
            self._target.mux(packet)
        except _REFUSED:
            self.refused[next(of for of, copy in self.indices.items() if copy == index)] += 1

    def mkv_takes(self, stream: Any) -> bool:
        """Return whether Matroska takes a stream of the source."""
        return _parameters_for(stream, MATROSKA, self._samples.get(stream.index)) is not None

    def packets(self) -> Iterator[tuple[Fraction, Any]]:
        """Yield times in seconds to sort by, and packets to mux, in the file's order, up to the first unreadable one.

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
            except UNREADABLE:
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
        """Return whether a packet is hidden for its repeated time, as in fragments, and not by an edit list.

        A file of fragments has no count of packets in its header.
        """
        repeated = before is not None and packet.dts is not None and packet.dts <= before
        return repeated and not self._source.streams[packet.stream_index].frames

    def _timed(self, packet: Any, offset: Fraction, last: int | None) -> Any:
        """Return a packet in its target's ticks, after the ``last``."""
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


def samples_of(uri: str) -> dict[int, bytes]:
    """Return the first packet of every stream of a file that begins early."""
    with open_input(uri) as (source, _):
        samples: dict[int, bytes] = {}
        with suppress(*UNREADABLE):
            for packet in islice(source.demux(), _SAMPLED):
                if packet.size:
                    samples.setdefault(packet.stream_index, bytes(packet))
                if len(samples) == len(source.streams):
                    break
        return samples


def copy_tags(source: Any, target: Any) -> None:
    """Copy a stream's tags, like its language, and its disposition."""
    target.metadata.update(tags_of(source))
    target.disposition = source.disposition


def _copy(stream: Any, target: Any, sample: bytes | None) -> Any | None:
    parameters = _parameters_for(stream, target.format.name, sample)
    if parameters is None:
        return None
    if stream.type == "attachment":
        return target.add_stream_from_template(stream)
    copy = _added(parameters, stream, target)
    copy_tags(stream, copy)
    return copy


def _parameters_for(stream: Any, container: str, sample: bytes | None) -> Any | None:
    """Return a stream with the codec's parameters as a container takes them; None if it takes none."""
    if stream.type == "attachment":
        return stream if container == MATROSKA else None
    if stream.type not in ("audio", "subtitle"):
        return None
    found = [stream]
    if stream.codec_context is not None:
        with suppress(av.FFmpegError):  # of an unknown codec
            found.insert(0, _untagged(stream))
    return next((parameters for parameters in found if _is_taken(parameters, stream, container, sample)), None)


def _untagged(stream: Any) -> Any:
    """Return a stream that has the codec's parameters without its tag in the source's container."""
    with av.open(io.BytesIO(), "w", format="null") as nowhere:
        copy = nowhere.add_stream_from_template(stream, opaque=True)
        if stream.type == "audio" and stream.layout.name.endswith(" channels") and stream.channels in _LAYOUTS:
            copy.codec_context.layout = _LAYOUTS[stream.channels]
        nowhere.start_encoding()
    return copy


def _is_taken(parameters: Any, stream: Any, container: str, sample: bytes | None) -> bool:
    """Return whether a container takes a stream, tried with a file of its own: a list of codecs is not enough.

    A muxer may know a codec and refuse it nevertheless, and with it all that is in the file, or write what no demuxer
    takes for that codec.
    """
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container) as trial:
            copy = _added(parameters, stream, trial)
            trial.start_encoding()
            if sample is None:
                return True
            packet = av.Packet(sample)
            packet.pts = packet.dts = 0
            packet.stream, packet.time_base = copy, copy.time_base
            trial.mux(packet)
        file.seek(0)
        with av.open(file) as written:
            # In an mp4, the packets alone show which of MPEG's layers they are.
            found = [codec_of(other).replace("mp2", "mp3") for other in written.streams]
            if found[:1] != [codec_of(stream).replace("mp2", "mp3")]:
                return False
            # A mov takes WMA and writes a header without its parameters: no decoder opens it.
            return stream.type != "audio" or written.streams[0].channels > 0
    except (av.FFmpegError, ValueError):
        return False


def _added(parameters: Any, stream: Any, target: Any) -> Any:
    """Add a stream for packets of ``stream``; PyAV's own way refuses codecs that Matroska takes under a Windows tag."""
    copy = target.add_data_stream()
    BitStreamFilterContext("null", in_stream=parameters, out_stream=copy)
    copy.time_base = stream.time_base
    return copy
