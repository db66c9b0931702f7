"""What a video file holds beside its pictures: copied as it is, packet by packet."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

# Tags that a muxer writes itself, or that tell of the source's file and not of what is in it.
_FILE_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands"}
_STREAM_TAGS = {"encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes"}


class Copies:
    """The streams of a source that go into a target."""

    def __init__(self, source: Any, video: Any, target: Any) -> None:
        """Lay out streams in ``target``, after its video's, and copy chapters and tags.

        Args:
            source: PyAV's container, opened for reading.
            video: its stream that is not copied.
            target: PyAV's container, nothing written to it yet.
        """
        self.left_out: list[str] = []
        self._source = source
        self._streams: dict[int, Any] = {}
        supported = target.supported_codecs
        for stream in source.streams:
            if stream.index == video.index:
                continue
            copy = _copy(stream, target, supported)
            if copy is None:
                self.left_out.append(_described(stream))
            elif stream.type != "attachment":  # these are in the header
                self._streams[stream.index] = copy
        target.set_chapters(source.chapters())
        target.metadata.update({key: value for key, value in source.metadata.items() if key.lower() not in _FILE_TAGS})

    def packets(self) -> Iterator[tuple[Fraction, Any]]:
        """Times in seconds to sort by, and packets to mux, in the file's order, up to the first that cannot be read."""
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
            seconds = time * Fraction(packet.time_base)
            packet.stream = self._streams[packet.stream_index]
            yield seconds, packet


def copy_tags(source: Any, target: Any) -> None:
    """A stream's tags, like its language, and its disposition."""
    kept = {key: value for key, value in source.metadata.items() if key.lower().split("-")[0] not in _STREAM_TAGS}
    target.metadata.update({key: value for key, value in kept.items() if not key.startswith("_STATISTICS")})
    target.disposition = source.disposition


def _copy(stream: Any, target: Any, supported: set[str]) -> Any | None:
    if stream.type == "attachment":
        return target.add_stream_from_template(stream) if target.format.name == "matroska" else None
    if stream.type not in ("audio", "subtitle") or stream.codec_context is None:
        return None
    if stream.codec_context.codec.canonical_name not in supported:
        return None
    copy = target.add_stream_from_template(stream)
    copy_tags(stream, copy)
    return copy


def _described(stream: Any) -> str:
    if stream.codec_context is not None:
        name = stream.codec_context.codec.canonical_name
    else:
        name = getattr(stream, "name", None) or "unknown"
    return f"{stream.type or 'stream'} ({name})"
