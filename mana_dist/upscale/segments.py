"""A video's segments: the encoder begins anew at each, so that they can be made apart and joined without a seam.

Where they begin is a function of the video alone, never of who works on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mana_dist.video.keyframes import Cut, entry_before, spaced


@dataclass(frozen=True)
class Segment:
    """A part of a video that gets an encoder of its own.

    Frames belong to a segment by their timestamps, since a damaged frame that cannot be decoded must not shift the
    others; by counting where the video can be read from its beginning alone.

    Attributes:
        number: its place, from 0.
        start: number of its first frame, in display order.
        stop: number of the first frame not in it any more; None: to the end. Of a damaged video, where it would be.
        pts: timestamp of its first frame, in the stream's units; None: the video's beginning, or frames are counted.
        pts_stop: timestamp of the first frame not in it any more; None: to the end, or frames are counted.
        seek: the keyframe to decode from, far enough before for the windows of the first frame and for shot cuts; None:
            the video's beginning.
        first: number of the first frame that is wanted at all, in this segment or a later one.
        end: number of the first frame that is not wanted any more; None: all are.
    """

    number: int
    start: int
    stop: int | None
    pts: int | None = None
    pts_stop: int | None = None
    seek: Cut | None = None
    first: int = 0
    end: int | None = None

    @property
    def name(self) -> str:
        """Name of the segment's files, without suffix."""
        return f"segment-{self.number:06}"


def plan(cuts: Sequence[Cut], frames: int, length: int, context: int) -> tuple[Segment, ...]:
    """Cut a video at keyframes into segments of at least ``length`` frames; the last may have fewer than that.

    Args:
        cuts: the keyframes, ascending, the first frame among them; empty: there is none to begin at, so segments are
            cut by count.
        frames: how many the video has, by its packets.
        length: the least number of frames in a segment; less than half of it at the end joins the one before.
        context: frames before a segment that must be decoded, and be right, for its first.

    Returns:
        At least one; without gaps, the first from the beginning and the last to the end.
    """
    if not cuts:
        begins = list(range(0, max(frames - length // 2, 1), length))
        stops = [*begins[1:], None]
        return tuple(Segment(number, *ends) for number, ends in enumerate(zip(begins, stops, strict=True)))
    chosen = [None, *spaced(cuts, 0, frames, length, length // 2)]
    return tuple(
        Segment(
            number,
            begin.number if begin else 0,
            end.number if end else None,
            begin.pts if begin else None,
            end.pts if end else None,
            entry_before(cuts, begin.number - context) if begin else None,
        )
        for number, (begin, end) in enumerate(zip(chosen, [*chosen[1:], None], strict=True))
    )


def within(segments: Sequence[Segment], first: int, end: int | None) -> tuple[Segment, ...]:
    """Return the segments that hold frames from number ``first`` to ``end`` (exclusive; None: the last), cut to these.

    Frames around the range stay available to the windows of those in it.
    """
    return tuple(
        replace(segment, first=first, end=end)
        for segment in segments
        if (end is None or segment.start < end) and (segment.stop is None or segment.stop > first)
    )
