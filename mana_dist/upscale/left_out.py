"""Parts of a source that are not in the written file, found by opening that file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from mana_dist.upscale.streams import Copies

# Tags that a muxer writes itself, or that describe the source's file and not its content.
_FILE_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands"}
_STREAM_TAGS = {"encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes"}
_STATISTICS = "_statistics"
_MKV = ".mkv takes it"


def tags_of(item: Any) -> dict[str, str]:
    """Return the tags of a PyAV container or stream that describe its content."""
    own = _STREAM_TAGS if hasattr(item, "index") else _FILE_TAGS
    return {
        key: value
        for key, value in item.metadata.items()
        if key.lower().split("-")[0] not in own and not key.lower().startswith(_STATISTICS)
    }


def left_out(source: Any, video: Any, path: str, copied: "Copies") -> list[str]:
    """Return what the written file does not hold, as lines.

    Args:
        source: PyAV's container, opened for reading.
        video: its stream of the pictures.
        path: path of the written file, whose first stream is that of the pictures.
        copied: the other streams.
    """
    with av.open(path, metadata_errors="replace") as result:
        mend = "" if "matroska" in result.format.name else _MKV
        kept = [_lowered(item) for item in (result, *result.streams)]
        found: list[str] = []
        for stream in source.streams:
            name, codec = _described(stream)
            if stream is video:
                found += _differences(stream, result.streams[0], "the video", mend, kept)
            elif (copy := _copy_of(stream, result, copied)) is not None:
                called = f"{stream.type} {stream.index}"
                found += _differences(stream, copy, called, mend, kept)
                if refused := copied.refused[stream.index]:
                    found.append(_line(f"{refused} packets of {called}", codec))
            elif not _is_kept_otherwise(stream, kept):
                found.append(_line(name, codec, mend if mend and copied.mkv_takes(stream) else ""))
        found += [_line(f"tag {key}", mend) for key in _lost(tags_of(source), kept[:1])]
        if (chapters := len(source.chapters()) - len(result.chapters())) > 0:
            found.append(_line(f"{chapters} chapters", mend))
        return found


def codec_of(stream: Any) -> str:
    """Return FFmpeg's name of a stream's codec; for an attachment, its file name."""
    if stream.codec_context is None:
        return getattr(stream, "name", None) or "unknown"
    return str(stream.codec_context.codec.canonical_name)


def _copy_of(stream: Any, result: Any, copied: "Copies") -> Any | None:
    index = copied.indices.get(stream.index, len(result.streams))
    copy = result.streams[index] if index < len(result.streams) else None
    return copy if copy is not None and copy.type == stream.type else None


def _differences(stream: Any, copy: Any, name: str, mend: str, kept: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the tags and marks of a stream that its copy lacks."""
    own = _lowered(copy)
    for key, value in tags_of(stream).items():
        # A file's time of creation may stand once, for all its streams.
        if _lost({key: value}, [own]) and not (key == "creation_time" and kept[0].get(key) == value):
            yield _line(f"{key} of {name}", mend)
    for flag in av.stream.Disposition:
        if flag & stream.disposition & ~copy.disposition:
            yield _line(f"mark {flag.name} of {name}", mend)


def _is_kept_otherwise(stream: Any, kept: Sequence[Mapping[str, str]]) -> bool:
    """Return whether muxers make anew what a track that is not copied holds: a timecode, or names of chapters."""
    if "timecode" in stream.metadata:
        return any(tags.get("timecode") == stream.metadata["timecode"] for tags in kept)
    return bool(stream.type == "data" and stream.discard == av.stream.Discard.all)


def _lost(tags: Mapping[str, str], written: Sequence[Mapping[str, str]]) -> list[str]:
    return [
        key
        for key, value in tags.items()
        if (key.lower(), value) != ("language", "und") and not any(key.lower() in others for others in written)
    ]


def _line(what: str, *details: str) -> str:
    given = "; ".join(detail for detail in details if detail)
    return f"{what} ({given})" if given else what


def _lowered(item: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in item.metadata.items()}


def _described(stream: Any) -> tuple[str, str]:
    cover = stream.disposition & av.stream.Disposition.attached_pic
    return "cover picture" if cover else stream.type or "stream", codec_of(stream)
