"""What a video file holds beside its pictures: copied as it is, packet by packet."""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av

from mana_dist.upscale.jumps import Follower

# Tags that a muxer writes itself, or that tell of the source's file and not of what is in it.
_FILE_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands"}
_STREAM_TAGS = {"encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes"}
# What a number of channels means where nothing else is told; mp4 takes no PCM without it.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_SOME_PCM = bytes(24 * 64)  # whole samples of all formats, of up to 8 channels


class Copies:
    """The streams of a source that go into a target."""

    def __init__(self, source: Any, video: Any, target: Any, offsets: Sequence[Fraction] = ()) -> None:
        """Lay out streams in ``target``, after its video's, and copy chapters and tags.

        Args:
            source: PyAV's container, opened for reading.
            video: its stream that is not copied.
            target: PyAV's container, nothing written to it yet.
            offsets: seconds to add to all times after each of their jumps back.
        """
        self.left_out: list[str] = []
        self._source = source
        self._followers = defaultdict[int, Follower](lambda: Follower(offsets))
        # An mp4's edit list hides packets, like an encoder's first; Matroska has none, and would play them.
        self._plays_all = target.format.name == "matroska"
        self._streams: dict[int, Any] = {}
        for stream in source.streams:
            if stream.index == video.index:
                continue
            copy = _copy(stream, target)
            if copy is None:
                self.left_out.append(_described(stream))
            elif stream.type != "attachment":  # these are in the header
                self._streams[stream.index] = copy
        target.set_chapters(source.chapters())
        target.metadata.update({key: value for key, value in source.metadata.items() if key.lower() not in _FILE_TAGS})

    def packets(self) -> Iterator[tuple[Fraction, Any]]:
        """Times in seconds to sort by, and packets to mux, in the file's order, up to the first that cannot be read.

        Into Matroska without those that the source's container hides.
        """
        if not self._streams:
            return
        packets = self._source.demux(*(self._source.streams[index] for index in self._streams))
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                return
            if packet is None:
                return
            time = packet.dts if packet.dts is not None else packet.pts
            if time is None or not packet.size:  # the demuxer's end mark holds no data
                continue
            if self._plays_all and packet.is_discard:
                continue
            seconds = time * Fraction(packet.time_base)
            if offset := self._followers[packet.stream_index].offset(seconds):
                ticks = round(offset / packet.time_base)
                seconds += offset
                packet.pts, packet.dts = (old if old is None else old + ticks for old in (packet.pts, packet.dts))
            packet.stream = self._streams[packet.stream_index]
            yield seconds, packet


def copy_tags(source: Any, target: Any) -> None:
    """A stream's tags, like its language, and its disposition."""
    kept = {key: value for key, value in source.metadata.items() if key.lower().split("-")[0] not in _STREAM_TAGS}
    target.metadata.update({key: value for key, value in kept.items() if not key.startswith("_STATISTICS")})
    target.disposition = source.disposition


def _copy(stream: Any, target: Any) -> Any | None:
    if stream.type == "attachment":
        return target.add_stream_from_template(stream) if target.format.name == "matroska" else None
    if stream.type not in ("audio", "subtitle") or stream.codec_context is None:
        return None
    if not _is_taken(stream, target.format.name):
        return None
    copy = _added(stream, target)
    copy_tags(stream, copy)
    return copy


def _is_taken(stream: Any, container: str) -> bool:
    """Whether a container takes a stream, tried with a file of its own: a list of codecs does not tell.

    A muxer may know a codec and refuse it nevertheless, and with it all that is in the file.
    """
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            copy = _added(stream, trial)
            trial.start_encoding()
            if stream.codec_context.name.startswith("pcm_"):  # some of it is refused at the file's end alone
                packet = av.Packet(_SOME_PCM)
                packet.pts = packet.dts = 0
                packet.stream, packet.time_base = copy, copy.time_base
                trial.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _added(stream: Any, target: Any) -> Any:
    copy = target.add_stream_from_template(stream)
    if stream.type == "audio" and stream.layout.name.endswith(" channels") and stream.channels in _LAYOUTS:
        copy.codec_context.layout = _LAYOUTS[stream.channels]
    return copy


def _described(stream: Any) -> str:
    if stream.codec_context is not None:
        name = stream.codec_context.codec.canonical_name
    else:
        name = getattr(stream, "name", None) or "unknown"
    return f"{stream.type or 'stream'} ({name})"
