"""Decoding for the ingest: numbered frames, parts of long videos, damage, and what headers tell.

Damage never passes as a frame where it can be seen: a group of pictures (keyframe to keyframe) in which an error comes
up is left out whole, and so are frames that refer to it. Where such groups are many, the clip's others are not trusted
either: a wrong bit often decodes to a wrong picture without an error.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

import av

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.video.colours import Frame, rgb_of
from mana_dist.video.containers import DEFAULT_RATE, check_not_encrypted, open_input, promised_packets
from mana_dist.video.gops import GAP, GopDecoder, Loss, UnreachableError
from mana_dist.video.keyframes import Cut, packets_from, scan
from mana_dist.video.orientation import shown_size
from mana_dist.video.picture_files import shown_size as picture_size
from mana_dist.video.picture_files import to_frame
from mana_dist.video.progressive import NumberedPicture, progressive
from mana_dist.video.stream_tags import shown

_DENSE = 10
"""Where more than one group of pictures in this many has errors, no other is trusted."""
_FIRST_PACKETS = 32  # within these a decoder gives its first frame

_logger = logging.getLogger(__name__)


class NumberedFrame(NamedTuple):
    """A frame and its place in its source.

    Attributes:
        number: place in display order, from 0.
        pixels: uint8 (H, W, 3), RGB, as :func:`mana_dist.video.colours.pixels_of` makes it.
    """

    number: int
    pixels: Frame


@dataclass(frozen=True)
class Segment:
    """A part of a video that can be decoded without the parts before.

    Attributes:
        pts: time stamp of the keyframe to decode from, in the stream's units; None: the video's beginning.
        first: number of the first frame to deliver.
        frames: how many frame numbers from ``first`` on; None: to the end.
        skip: ``first`` less the keyframe's number.
    """

    pts: int | None
    first: int
    frames: int | None
    skip: int = 0


@dataclass(frozen=True)
class Damage:
    """What of a video cannot be trusted.

    Attributes:
        ranges: numbers of the frames to leave out, ascending, apart from each other.
        reason: what was wrong, one line for people; empty where nothing was.
        gaps: numbers of frames that are missing, all others being right there: each stands for one or more.
    """

    ranges: tuple[range, ...]
    reason: str
    gaps: tuple[int, ...] = ()

    def spoils(self, number: int) -> bool:
        """Whether frame ``number`` is to be left out."""
        return any(number in numbers for numbers in self.ranges)


class DamageFound(Exception):  # noqa: N818  (not a mistake of anybody's: the caller goes on with it)
    """The video is damaged: frames already delivered may be wrong. Call :func:`survey`, then decode again."""


@dataclass(frozen=True)
class HeaderInfo:
    """What a clip's header tells.

    Attributes:
        width: pixels, as shown (rotation applied).
        height: pixels, as shown.
        frames: counted by the header, or duration times rate; None where it tells neither.
        rate: frames per second.
        codec: FFmpeg's name of it; of a folder's pictures their suffix.
    """

    width: int
    height: int
    frames: int | None
    rate: Fraction
    codec: str


def numbered_frames(
    uri: str,
    segment: Segment | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    damage: Damage | None = None,
) -> Iterator[NumberedFrame]:
    """The frames of a video, or of a segment of it, with their numbers; single-threaded.

    A segment gives the very frames that reading the whole video gives. Frames left out leave their numbers out.
    Frames may change their size.

    Args:
        uri: a video file.
        segment: the part to read, within the range asked for; None: frames ``start`` to ``stop``.
        start: first frame, from 0; without a segment.
        stop: first frame not wanted any more; without a segment.
        damage: what :func:`survey` said of the same part.

    Raises:
        DamageFound: frames cannot be trusted; only with ``damage`` None.
        UserError: missing, no video, encrypted, not one frame can be decoded.
        OSError: the storage failed.
    """
    wanted = segment or Segment(None, start, None if stop is None else stop - start)
    try:
        yield from _frames(uri, wanted, damage, in_parts=segment is not None)
    except UnreachableError:  # before the first frame: read the video from its beginning, as slow as that may be
        yield from _frames(uri, Segment(None, wanted.first, wanted.frames), damage, in_parts=True)


def survey(uri: str, segment: Segment | None = None, *, start: int = 0, stop: int | None = None) -> Damage:
    """Decode as :func:`numbered_frames` does, and say which frames cannot be trusted.

    Raises:
        UserError: as there.
        OSError: as there.
    """
    wanted = segment or Segment(None, start, None if stop is None else stop - start)
    try:
        return _survey(uri, wanted, in_parts=segment is not None)
    except UnreachableError:
        return _survey(uri, Segment(None, wanted.first, wanted.frames), in_parts=True)


def folder_frames(
    uri: str,
    files: Sequence[str],
    start: int = 0,
    stop: int | None = None,
    lost: Callable[[str], None] = lambda _: None,
) -> Iterator[NumberedFrame]:
    """The frames of a folder, numbered by their place among ``files``.

    A picture that is missing or cannot be read is left out, with a line in the log. Sizes may change.

    Args:
        uri: the folder.
        files: the pictures' names in it, in order.
        start: first frame, from 0.
        stop: first frame not wanted any more.
        lost: called with the name of each picture that is left out.

    Raises:
        UserError: not one of them can be read.
        OSError: the storage failed.
    """
    trouble: UserError | None = None
    count = 0
    for number, file in list(enumerate(files))[start:stop]:
        picture = storage.join(uri, file)
        try:
            frame = to_frame(storage.read_bytes(picture), picture)
        except FileNotFoundError:
            trouble = UserError(f"{picture}: no such file")
        except UserError as error:
            trouble = error
        else:
            yield NumberedFrame(number, frame)
            count += 1
            continue
        _logger.warning("%s", trouble)
        lost(file)
    if trouble is not None and count == 0:
        raise trouble


def probe_header(uri: str, files: Sequence[str] | None) -> HeaderInfo:
    """What the header of a video (``files`` None) or of a folder's first picture that can be read tells.

    The rotation stands nowhere but on a decoded frame, so one is decoded if that can be done.

    Raises:
        UserError: missing, no video or picture, encrypted, no decoder for it.
        OSError: the storage failed.
    """
    if files is not None:
        return _folder_header(uri, files)
    with open_input(uri) as (container, stream):
        codec, rate = stream.codec_context, _rate(stream)
        crop = shown(stream).crop
        width, height = crop.size(codec.width, codec.height)
        first = _first_frame(uri, container.demux(stream))
        if first is not None:
            width, height = shown_size(first, crop)
        if not width or not height:
            raise UserError(f"{uri}: its header tells no size, and its first frame cannot be decoded")
        return HeaderInfo(width, height, _header_frames(container, stream), rate, codec.name)


def plan_segments(uri: str, length: int, overlap: int, start: int = 0, stop: int | None = None) -> list[Segment]:
    """Cut frames ``start`` to ``stop`` of a video at keyframes into segments of at least ``length`` frames.

    Every segment but the last runs on ``overlap`` frames into the next, so that each window of ``overlap`` + 1 frames
    lies in just one segment. Reads the whole file once, and decodes little of it: the first group of pictures and two
    of the cuts, to see that frames are numbered as by reading the whole.

    Returns:
        The segments in order. A single one where the video is short, or cannot be cut: its timestamps are missing or
        not unique, it has no second keyframe, packets are not frames, or seeking does not land where it must.

    Raises:
        UserError: missing, no video.
        OSError: the storage failed.
    """
    whole = [Segment(None, start, None if stop is None else stop - start)]
    with open_input(uri) as (container, stream):
        scanned = scan(container, stream)
    end = scanned.frames if stop is None else min(stop, scanned.frames)
    chosen: list[Cut] = []
    for cut in scanned.cuts[1:]:
        # A segment begins one frame after its keyframe: deinterlacing its first frame needs the one before.
        done = chosen[-1].number + 1 if chosen else start
        if cut.number + 1 - done >= length and end - (cut.number + 1) >= length:
            chosen.append(cut)
    entry = next((cut for cut in reversed(scanned.cuts) if 0 < cut.number < start), None)
    probed = {scanned.cuts[1], chosen[len(chosen) // 2], chosen[-1]} if chosen else set()
    if not chosen or not all(_is_reached(uri, cut, in_order=cut == scanned.cuts[1]) for cut in sorted(probed)):
        return whole
    first = Segment(None, start, None) if entry is None else Segment(entry.pts, start, None, start - entry.number)
    begins = [first, *(Segment(cut.pts, cut.number + 1, None, 1) for cut in chosen)]
    ends = [following.first + overlap for following in begins[1:]]
    return [
        Segment(part.pts, part.first, None if to is None else min(to, end) - part.first, part.skip)
        for part, to in zip(begins, [*ends, stop], strict=True)
    ]


def _is_reached(uri: str, cut: Cut, *, in_order: bool) -> bool:
    """Whether seeking to a keyframe gives it first; ``in_order``: and reading up to it counts to its number."""
    segments = [Segment(cut.pts, cut.number, None), *([Segment(None, cut.number, None)] if in_order else [])]
    try:
        for segment in segments:
            with _decoder(uri, segment, in_parts=segment.pts is not None) as decoder:
                found = next((frame for frame in decoder.read() if frame.number >= cut.number), None)
            if found is None or found.number != cut.number or found.picture.pts != cut.pts or decoder.damaged:
                return False
    except UnreachableError:
        return False
    return True


@contextmanager
def _decoder(uri: str, segment: Segment, *, in_parts: bool) -> Iterator[GopDecoder]:
    with open_input(uri) as (container, stream):
        if segment.pts is None:
            packets, key = container.demux(stream), 0
        else:
            packets, key = packets_from(container, stream, segment.pts), segment.first - segment.skip
        yield GopDecoder(
            uri,
            stream,
            packets,
            key,
            by_packets=in_parts,
            exact=segment.pts is not None,
        )


def _frames(uri: str, segment: Segment, damage: Damage | None, *, in_parts: bool) -> Iterator[NumberedFrame]:
    end = sys.maxsize if segment.frames is None else segment.first + segment.frames
    count = 0
    with _decoder(uri, segment, in_parts=in_parts) as decoder:
        view = shown(decoder.stream)
        for number, picture in progressive(_trusted(decoder, damage, end)):
            count += 1
            if segment.first <= number < end:
                yield NumberedFrame(number, rgb_of(uri, number, picture, 8, view))
        if damage is None and (decoder.damaged or _missing_at_end(decoder, segment)):
            raise DamageFound(uri)
    if damage is None and count == 0:
        raise UserError(f"{uri}: holds no video frame that can be decoded")


def _trusted(decoder: GopDecoder, damage: Damage | None, end: int) -> Iterator[NumberedPicture]:
    """Frames up to ``end`` and one more, which deinterlacing the last may need."""
    for frame in decoder.read():
        if damage is None and decoder.damaged:
            return
        if damage is None or not damage.spoils(frame.number):
            yield frame
        if frame.number >= end:
            return


def _survey(uri: str, segment: Segment, *, in_parts: bool) -> Damage:
    end = sys.maxsize if segment.frames is None else segment.first + segment.frames
    with _decoder(uri, segment, in_parts=in_parts) as decoder:
        for frame in decoder.read():
            if frame.number >= end:
                break
        damage = _damage_of(decoder.losses(), decoder.gops)
        missing = _missing_at_end(decoder, segment)
    if not missing:
        return damage
    return replace(damage, reason=f"{damage.reason}; {missing}" if damage.reason else missing)


def _missing_at_end(decoder: GopDecoder, segment: Segment) -> str:
    """What is missing at the end of a video that was read as a whole; empty where nothing is, as far as seen."""
    if segment.pts is not None or not decoder.is_at_end:
        return ""
    promised = promised_packets(decoder.stream.container, decoder.stream, decoder.count, decoder.end)
    if promised == decoder.count:
        return ""
    return f"damaged or cut off: only {decoder.count} frames of the {promised} that its header promises"


def _damage_of(losses: Sequence[Loss], groups: int) -> Damage:
    if not losses:
        return Damage((), "")
    wrong = sum(not loss.torn for loss in losses)
    reason = next((loss.reason for loss in losses if loss.reason not in ("", GAP)), GAP)
    if wrong * _DENSE > groups:
        return Damage(
            (range(sys.maxsize),),
            f"damaged: {wrong} of its {groups} groups of pictures have errors ({reason}), so none of them is trusted",
        )
    ranges: list[range] = []
    for loss in losses:
        if ranges and loss.first <= ranges[-1].stop:
            ranges[-1] = range(ranges[-1].start, max(ranges[-1].stop, loss.end))
        else:
            ranges.append(range(loss.first, loss.end))
    where = ", ".join(f"{part.start} to {part.stop - 1}" for part in ranges[:3])
    more = f" and {len(ranges) - 3} more stretches" if len(ranges) > 3 else ""
    gaps = tuple(loss.first for loss in losses if loss.is_gap)
    return Damage(tuple(ranges), f"damaged ({reason}): left out frames {where}{more}", gaps)


def _first_frame(uri: str, packets: Iterator[Any]) -> Any | None:
    """The first frame, if it can be decoded."""
    try:
        for packet in islice(packets, _FIRST_PACKETS):
            check_not_encrypted(packet, uri)
            for frame in packet.decode():
                return frame
    except av.FFmpegError:
        pass
    return None


def _header_frames(container: Any, stream: Any) -> int | None:
    counts = [int(stream.frames)]
    if stream.duration is not None:
        counts.append(round(stream.duration * stream.time_base * _rate(stream)))
    elif container.duration is not None:
        counts.append(round(Fraction(container.duration, av.time_base) * _rate(stream)))
    # A fragmented mp4 counts the frames of its first fragment alone.
    counted_short = 2 * counts[0] < counts[-1]
    return (counts[-1] if counted_short else counts[0]) or None


def _rate(stream: Any) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def _folder_header(uri: str, files: Sequence[str]) -> HeaderInfo:
    trouble: UserError | None = None
    for file in files:
        picture = storage.join(uri, file)
        try:
            width, height = picture_size(storage.read_bytes(picture), picture)  # EXIF may stand at the end
        except FileNotFoundError:
            trouble = trouble or UserError(f"{picture}: no such file")
        except UserError as error:
            trouble = trouble or error
        else:
            return HeaderInfo(width, height, len(files), DEFAULT_RATE, file.rpartition(".")[2].lower())
    raise trouble or UserError(f"{uri}: a folder without PNG or JPEG frames")
