"""Decoding for ingest and evaluation: numbered frames, parts of long videos, and frames left out as damaged.

Damage never passes as a frame where it can be seen: a group of pictures (keyframe to keyframe) in which an error comes
up is left out whole, and so are frames that refer to it. Where such groups are many, the clip's others are not trusted
either: a wrong bit often decodes to a wrong picture without an error.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from mana_dist.errors import UserError
from mana_dist.video.containers import open_input, promised_packets
from mana_dist.video.frame_stream import FrameStream, NumberedFrame, open_frames
from mana_dist.video.gops import GAP, Loss
from mana_dist.video.keyframes import Cut, entry_before, readable, scan, spaced
from mana_dist.video.progressive import NumberedPicture

_DENSE = 10
"""Limit of damage: if more than one group of pictures in this many has errors, no other is trusted."""


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
    """The frames of a video that cannot be trusted.

    Attributes:
        ranges: numbers of the frames to leave out, ascending, apart from each other.
        reason: what was wrong, one line; empty if nothing was.
        gaps: numbers of frames that are missing, all others being right there: each stands for one or more.
    """

    ranges: tuple[range, ...]
    reason: str
    gaps: tuple[int, ...] = ()

    def spoils(self, number: int) -> bool:
        """Return whether frame ``number`` is to be left out."""
        return any(number in numbers for numbers in self.ranges)


class DamageFound(Exception):  # noqa: N818  (no error: the caller goes on with it)
    """Signal of damage: frames already delivered may be wrong. Call :func:`survey`, then decode again."""


def numbered_frames(
    uri: str,
    segment: Segment | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    damage: Damage | None = None,
) -> Iterator[NumberedFrame]:
    """Yield the frames of a video, or of a segment of it, with their numbers; single-threaded.

    A segment gives the very frames that reading the whole video gives. Frames left out leave their numbers out.
    Frames may change their size.

    Args:
        uri: a video file.
        segment: the part to read; None: frames ``start`` to ``stop``.
        start: first frame, from 0; without a segment.
        stop: first frame not wanted any more; without a segment.
        damage: the result of :func:`survey` for the same part.

    Raises:
        DamageFound: frames cannot be trusted; only with ``damage`` None.
        UserError: missing, no video, encrypted, not one frame can be decoded.
        OSError: the storage failed.
    """
    with _opened(uri, segment) as video:
        wanted = _range(segment, start, stop)
        yield from video.frames(_trusted(video, damage, wanted.stop), wanted=wanted)
        if damage is None and (video.decoder.damaged or _missing_at_end(video)):
            raise DamageFound(uri)
    if damage is None and not video.has_begun:
        raise UserError(f"{uri}: holds no video frame that can be decoded")


def survey(uri: str, segment: Segment | None = None, *, start: int = 0, stop: int | None = None) -> Damage:
    """Decode as :func:`numbered_frames` does, and find the frames that cannot be trusted.

    Raises:
        UserError: as there.
        OSError: as there.
    """
    with _opened(uri, segment) as video:
        end = _range(segment, start, stop).stop
        for frame in video.pictures():
            if not frame.damaged and frame.number >= end:
                break
        damage = _damage_of(video.decoder.losses(), video.decoder.gops)
        missing = _missing_at_end(video)
    if not missing:
        return damage
    return replace(damage, reason=f"{damage.reason}; {missing}" if damage.reason else missing)


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
        scanned = scan(readable(container, stream))
    end = scanned.frames if stop is None else min(stop, scanned.frames)
    # A segment begins one frame after its keyframe: deinterlacing its first frame needs the one before.
    chosen = spaced(scanned.cuts[1:], start - 1, end - 1, length, length)
    entry = entry_before(scanned.cuts, start - 1)
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
    """Return whether seeking to a keyframe gives it first; ``in_order``: and reading up to it counts to its number."""
    for entry in [cut, None] if in_order else [cut]:
        with open_frames(uri, entry, by_packets=entry is not None) as video:
            found = next((frame for frame in video.pictures() if frame.number >= cut.number), None)
        if found is None or (found.number, found.picture.pts) != (cut.number, cut.pts) or video.decoder.damaged:
            return False
        if video.entry != entry:
            return False
    return True


def _opened(uri: str, segment: Segment | None) -> AbstractContextManager[FrameStream]:
    entry = None
    if segment is not None and segment.pts is not None:
        entry = Cut(segment.pts, segment.first - segment.skip)
    return open_frames(uri, entry, by_packets=segment is not None)


def _range(segment: Segment | None, start: int, stop: int | None) -> range:
    """Return the numbers of the wanted frames."""
    if segment is not None:
        start, stop = segment.first, None if segment.frames is None else segment.first + segment.frames
    return range(start, sys.maxsize if stop is None else stop)


def _trusted(video: FrameStream, damage: Damage | None, end: int) -> Iterator[NumberedPicture]:
    """Yield frames up to ``end`` and one more, which deinterlacing the last may need."""
    for frame in video.pictures():
        if damage is None and video.decoder.damaged:
            return
        if frame.damaged:
            continue
        if damage is None or not damage.spoils(frame.number):
            yield frame
        if frame.number >= end:
            return


def _missing_at_end(video: FrameStream) -> str:
    """Return what is missing at the end of a video that was read as a whole; empty if nothing is found missing."""
    decoder = video.decoder
    if video.entry is not None or not decoder.is_at_end:
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
