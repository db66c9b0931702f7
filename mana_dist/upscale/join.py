"""Segments joined to the video: the source's timestamps, audio, subtitles, chapters and tags."""

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.progress import count
from mana_dist.upscale import mark, segment_record
from mana_dist.upscale.comparison import COMPARE_SETTINGS, comparison_of
from mana_dist.upscale.config import Settings
from mana_dist.upscale.encode import INDEX_BASE, published
from mana_dist.upscale.left_out import left_out
from mana_dist.upscale.matroska import with_display_size
from mana_dist.upscale.picture_folder import join_pictures
from mana_dist.upscale.segment_files import compare_name, pictures_name, still_name
from mana_dist.upscale.segment_record import Record
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.source_video import Survey
from mana_dist.upscale.streams import Copies, copy_tags, samples_of
from mana_dist.upscale.timeline import Times, times_of
from mana_dist.video.colours import tag
from mana_dist.video.containers import ALONE, open_input

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffix -> ffmpeg's container
_ALL_ELSE = "everything but the pictures"


@dataclass(frozen=True)
class Summary:
    """The outcome of a video.

    Attributes:
        frames: how many were written.
        width: width of the frames, pixels.
        height: height of the frames, pixels.
        cuts: shot cuts among them.
        left_out: what is not in the result: ``subtitle (hdmv_pgs_subtitle)``.
        stopped: that the source cannot be decoded to its end, or not all of it, one line; else empty.
        extras: URIs of further files written: the comparison's.
        note: what was done about jumps of the source's clock, one line; empty if it has none.
    """

    frames: int
    width: int
    height: int
    cuts: int
    left_out: tuple[str, ...]
    stopped: str
    extras: tuple[str, ...]
    note: str = ""


def join(
    survey: Survey,
    segments: Sequence[Segment],
    folder: str,
    destination: str,
    settings: Settings,
    check: Callable[[], None] = lambda: None,
    marked: bytes | None = None,
) -> Summary:
    """Join all segments of a video.

    Args:
        survey: survey of the source.
        segments: all of them, each finished in ``folder``.
        folder: URI with what :func:`mana_dist.upscale.upscale_segments.upscale_segments` wrote.
        destination: URI of the file to write (of the folder with codec png); it appears whole or not at all.
        settings: as the segments were made.
        check: called just before a result appears; what it raises keeps it away.
        marked: the result's mark (:mod:`mana_dist.upscale.mark`); None: it gets none.

    Raises:
        UserError: a segment is missing, or there is no frame.
        OSError: a storage failed.
    """
    records = segment_record.read_finished(folder, segments)
    if not any(record.pts for record in records):
        what = "no frame of the range" if survey.is_range else "no video frame"
        raise UserError(f"{survey.uri}: holds {what} that can be decoded")
    times = times_of(records, survey)
    local = None if storage.is_remote(folder) else storage.resolve(folder)
    scratch = local if local and os.path.dirname(local) == os.path.dirname(storage.resolve(destination)) else None
    names = [pictures_name(segment, settings) for segment in segments]
    filled = [storage.join(folder, name) for name, record in zip(names, records, strict=True) if record.pts]
    extras: list[str] = []
    if settings.compare:
        extras = _join_comparison(survey, segments, records, folder, destination, scratch, check, marked)
    # Last: once it is there, all is there.
    if settings.codec == "png":
        join_pictures(survey, filled, times, destination, scratch, check, marked)
        left_out = [_ALL_ELSE]
    else:
        copies = not (survey.is_range or survey.pictures)
        left_out = _join_video(survey, filled, times, destination, scratch, settings, check, marked, copies=copies)
        if survey.is_range:
            left_out = [f"{_ALL_ELSE}, as with every range of frames"]
    if survey.pictures:
        left_out = []
    shown = next(record for record in records if record.pts)
    return Summary(
        len(times.pts),
        shown.width,
        shown.height,
        sum(record.cuts for record in records),
        tuple(left_out),
        _stopped(survey, records, times),
        tuple(extras),
        "" if survey.is_range else survey.clock.note,
    )


def _join_video(
    survey: Survey,
    files: Sequence[str],
    times: Times,
    destination: str,
    scratch: str | None,
    settings: Settings,
    check: Callable[[], None],
    marked: bytes | None,
    *,
    copies: bool,
) -> list[str]:
    suffix = os.path.splitext(destination)[1].lower()
    with (
        published(destination, scratch, check) as path,
        ExitStack() as reading,
        ExitStack() as stack,
    ):
        if marked is not None:
            stack.callback(mark.append, path, marked)  # once the container is closed
        if FORMATS[suffix] == "matroska" and survey.pixel_aspect != 1:
            stack.enter_context(with_display_size(path, survey.pixel_aspect))
        options = _options(suffix, survey, times)
        target = stack.enter_context(av.open(path, "w", format=FORMATS[suffix], options=options))
        first = stack.enter_context(_opened(files[0]))
        video = _lay_out(first.streams.video[0], target, survey, settings)
        others: Iterator[tuple[Fraction, Any]] = iter(())
        copied: Copies | None = None
        if copies:
            source, source_video = reading.enter_context(open_input(survey.uri))
            copy_tags(source_video, video)
            copied = Copies(source, source_video, target, survey.clock, samples_of(survey.uri))
            others = copied.packets()
        packets = _video_packets(files, times, survey.time_base, video)
        target.start_encoding()  # here: what is wrong with the header is not the fault of a packet
        for _, packet in heapq.merge(packets, others, key=lambda item: item[0]):
            if copied is None or packet.stream_index == video.index:
                target.mux(packet)
            else:
                copied.mux(packet)
        stack.close()  # it is whole
        if copied is None:
            return []
        return left_out(source, source_video, path, copied)


def _lay_out(template: Any, target: Any, survey: Survey, settings: Settings) -> Any:
    video = target.add_stream_from_template(template, opaque=True)
    video.time_base = survey.time_base
    context = video.codec_context
    context.sample_aspect_ratio = survey.pixel_aspect
    tag(context, survey.colours, rgb=settings.codec == "ffv1")
    if settings.codec == "hevc" and target.format.name != "matroska":
        context.codec_tag = "hvc1"  # what Apple's players want
    return video


def _video_packets(
    files: Sequence[str], times: Times, time_base: Fraction, video: Any
) -> Iterator[tuple[Fraction, Any]]:
    """Yield the segments' packets in decoding order, at the source's times."""
    done = 0
    setup: bytes | None = None
    for file in files:
        with _opened(file) as container:
            stream = container.streams.video[0]
            found = bytes(stream.codec_context.extradata or b"")
            if setup is not None and found != setup:
                raise UserError(f"{file}: made by another encoder than the segments before; delete it and run again")
            setup = found
            begin = done
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                index = begin + round(packet.pts * packet.time_base / INDEX_BASE)
                packet.time_base = time_base
                packet.pts, packet.dts = times.pts[index], times.dts(done)
                packet.duration = times.duration(index)
                packet.stream = video
                yield packet.dts * time_base, packet
                done += 1


def _join_comparison(
    survey: Survey,
    segments: Sequence[Segment],
    records: Sequence[Record],
    folder: str,
    destination: str,
    scratch: str | None,
    check: Callable[[], None],
    marked: bytes | None,
) -> list[str]:
    times = times_of(records, survey, compared=True)
    filled = [(segment, record) for segment, record in zip(segments, records, strict=True) if record.pts]
    video, still = comparison_of(destination)
    files = [storage.join(folder, compare_name(segment)) for segment, _ in filled]
    _join_video(survey, files, times, video, scratch, COMPARE_SETTINGS, check, marked, copies=False)
    most, _ = max(filled, key=lambda pair: pair[1].difference)
    storage.write_bytes(still, storage.read_bytes(storage.join(folder, still_name(most))))
    return [video, still]


def _opened(uri: str) -> Any:
    return av.open(storage.open_read(uri), options=ALONE)


def _options(suffix: str, survey: Survey, times: Times) -> dict[str, str]:
    options = {"fflags": "+bitexact"}  # no random identifiers: the same frames give the same file
    if FORMATS[suffix] == "matroska":
        # Sound that begins a little before the first frame moves no frame.
        return options | ({"avoid_negative_ts": "disabled"} if times.pts[0] >= 0 else {})
    # A start later than 0 is stored in ticks of the file, by default milliseconds: too coarse for most time bases.
    ticks = survey.time_base.denominator
    return options | {"movflags": "+faststart", "movie_timescale": str(ticks * -(-1000 // ticks))}


def _stopped(survey: Survey, records: Sequence[Record], times: Times) -> str:
    frames = len(times.pts)
    trouble = next((record.trouble for record in records if record.trouble), "")
    last = max(max(record.pts) for record in records if record.pts)
    about = max(survey.promised or 0, survey.frames)
    tick = survey.time_base
    unread = survey.last_pts is not None and (survey.last_pts - last) * tick > Fraction(3, 2) / survey.rate
    damaged: list[int] = []
    begin = 0
    for record in records:
        damaged += [begin + place for place in record.damaged]
        begin += len(record.pts)
    lines = []
    if trouble or (survey.promised or 0) > survey.frames or unread:
        seconds = float((times.pts[-1] - times.pts[0]) * tick + 1 / survey.rate)
        of = f" of about {about}" if about > frames else ""
        lines.append(
            f"stopped at frame {frames} ({seconds:.2f} s){of}: the source cannot be decoded beyond; the result holds "
            "what could be"
        )
    missing = sum(record.missing for record in records)
    if (damaged or missing) and not lines:
        missing = max(missing, about - frames)
    parts = []
    if damaged:
        seconds = float((times.pts[damaged[0]] - times.pts[0]) * tick)
        where = f"frame {damaged[0]} ({seconds:.2f} s)"
        parts.append(f"{count(len(damaged), 'frame')} from {where} on cannot be trusted and shown as decoded")
    if missing:
        parts.append(f"{count(missing, 'frame')} missing")
    if parts:
        lines.append(f"the source is damaged: {', '.join(parts)}")
    return "; ".join(lines)
