"""What of a source is not in the written file: found by opening that file, so that what is said is what is there."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import av

# Tags that a muxer writes itself, or that tell of the source's file and not of what is in it.
_FILE_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands"}
_STREAM_TAGS = {"encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes", "handler_name"}
_STATISTICS = "_statistics"
_MKV = ".mkv takes it"


def tags_of(item: Any) -> dict[str, str]:
    """The tags of a PyAV container or stream that tell of what is in it."""
    own = _STREAM_TAGS if hasattr(item, "index") else _FILE_TAGS
    return {
        key: value
        for key, value in item.metadata.items()
        if key.lower().split("-")[0] not in own and not key.lower().startswith(_STATISTICS)
    }


def left_out(
    source: Any, video: Any, path: str, copies: Mapping[int, int], mkv_takes: Callable[[Any], bool]
) -> list[str]:
    """What the written file does not hold, for people.

    Args:
        source: PyAV's container, opened for reading.
        video: its stream of the pictures.
        path: of the written file, whose first stream is that of the pictures.
        copies: indices of the written file's streams by those of the source's.
        mkv_takes: whether Matroska takes a stream of the source.
    """
    with av.open(path, metadata_errors="replace") as result:
        mend = "" if "matroska" in result.format.name else _MKV
        return list(_missing(source, video, result, copies, mkv_takes, mend))


def _missing(
    source: Any,
    video: Any,
    result: Any,
    copies: Mapping[int, int],
    mkv_takes: Callable[[Any], bool],
    mend: str,
) -> Iterator[str]:
    def line(what: str, detail: str = "") -> str:
        details = "; ".join(text for text in (detail, mend) if text)
        return f"{what} ({details})" if details else what

    written = {value for stream in result.streams for key, value in _lowered(stream).items() if key == "timecode"}
    for stream in source.streams:
        copy = result.streams[0 if stream is video else copies[stream.index]] if stream is video or (
            stream.index in copies
        ) else None
        name = "" if stream is video else f" of {stream.type} {stream.index}"
        if copy is None:
            if stream.metadata.get("timecode") not in written:
                kind, codec = _described(stream)
                yield line(kind, codec) if mend and mkv_takes(stream) else f"{kind} ({codec})"
            continue
        for key in _lost(tags_of(stream), _lowered(copy)):
            yield line(f"{key}{name}")
        lost = stream.disposition & ~copy.disposition
        for flag in av.stream.Disposition:
            if flag & lost:
                yield line(f"mark {flag.name}{name}")
    for key in _lost(tags_of(source), _lowered(result)):
        yield line(f"tag {key}")
    chapters = len(source.chapters()) - len(result.chapters())
    if chapters > 0:
        yield line(f"{chapters} chapters")


def _lost(asked: Mapping[str, str], written: Mapping[str, str]) -> list[str]:
    return [key for key in asked if key.lower() not in written and (key.lower(), asked[key]) != ("language", "und")]


def _lowered(item: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in item.metadata.items()}


def _described(stream: Any) -> tuple[str, str]:
    if stream.disposition & av.stream.Disposition.attached_pic:
        return "cover picture", stream.codec_context.codec.canonical_name
    if stream.codec_context is not None:
        name = stream.codec_context.codec.canonical_name
    else:
        name = getattr(stream, "name", None) or "unknown"
    return stream.type or "stream", name
