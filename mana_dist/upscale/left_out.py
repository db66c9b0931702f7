"""What of a source is not in the written file: found by opening that file, so that what is said is what is there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import av

# Tags that a muxer writes itself, or that tell of the source's file and not of what is in it.
_FILE_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands"}
_STREAM_TAGS = {"encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes"}
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
        kept = [_lowered(item) for item in (result, *result.streams)]
        found: list[str] = []
        for stream in source.streams:
            name, codec = _described(stream)
            if stream is video:
                found += _differences(stream, result.streams[0], "the video", mend, kept)
            elif stream.index in copies:
                copy = result.streams[copies[stream.index]]
                found += _differences(stream, copy, f"{stream.type} {stream.index}", mend, kept)
            elif not _is_kept_otherwise(stream, kept):
                found.append(_line(name, codec, mend if mkv_takes(stream) else ""))
        found += [_line(f"tag {key}", mend) for key in _lost(tags_of(source), kept[:1])]
        if (chapters := len(source.chapters()) - len(result.chapters())) > 0:
            found.append(_line(f"{chapters} chapters", mend))
        return found


def _differences(
    stream: Any, copy: Any, name: str, mend: str, kept: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    """What of a stream's tags and marks is not in its copy."""
    own = _lowered(copy)
    for key, value in tags_of(stream).items():
        # A file's time of creation may stand once, for all its streams.
        if _lost({key: value}, [own]) and not (key == "creation_time" and kept[0].get(key) == value):
            yield _line(f"{key} of {name}", mend)
    for flag in av.stream.Disposition:
        if flag & stream.disposition & ~copy.disposition:
            yield _line(f"mark {flag.name} of {name}", mend)


def _is_kept_otherwise(stream: Any, kept: Sequence[Mapping[str, str]]) -> bool:
    """Whether a track that is not copied stands for what muxers make anew: a timecode, or the names of chapters."""
    if "timecode" in stream.metadata:
        return any(tags.get("timecode") == stream.metadata["timecode"] for tags in kept)
    return bool(stream.type == "data" and stream.discard == av.stream.Discard.all)


def _lost(asked: Mapping[str, str], written: Sequence[Mapping[str, str]]) -> list[str]:
    return [
        key
        for key, value in asked.items()
        if (key.lower(), value) != ("language", "und") and not any(key.lower() in tags for tags in written)
    ]


def _line(what: str, *details: str) -> str:
    given = "; ".join(detail for detail in details if detail)
    return f"{what} ({given})" if given else what


def _lowered(item: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in item.metadata.items()}


def _described(stream: Any) -> tuple[str, str]:
    if stream.codec_context is None:
        return stream.type or "stream", getattr(stream, "name", None) or "unknown"
    kind = "cover picture" if stream.disposition & av.stream.Disposition.attached_pic else stream.type
    return kind, stream.codec_context.codec.canonical_name
