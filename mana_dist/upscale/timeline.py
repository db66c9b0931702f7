"""Timeline over all segments: when frames are shown, and when they are decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from mana_dist.upscale.segment_record import PacketOrder, Record
from mana_dist.upscale.source_video import Survey


@dataclass(frozen=True)
class Times:
    """The times of a whole video's frames, in the source's ticks.

    Attributes:
        pts: when they are shown, ascending.
        end: when the last is not shown any more.
        order: order of the packets; decoding is ``reorder`` frames ahead of showing.
    """

    pts: tuple[int, ...]
    end: int
    order: PacketOrder

    def from_zero(self) -> "Times":
        """Return the times counted from the first frame."""
        return Times(tuple(pts - self.pts[0] for pts in self.pts), self.end - self.pts[0], self.order)

    def duration(self, index: int) -> int:
        """Return how long frame ``index``, in the order of showing, is shown."""
        return (self.pts[index + 1] if index + 1 < len(self.pts) else self.end) - self.pts[index]

    def dts(self, place: int) -> int:
        """Return when the packet at ``place`` is decoded: with the frame ``reorder`` places before.

        The first packets are decoded before the first frame is shown. They begin so early that decoding takes
        as long as showing: mp4 has no other duration.
        """
        delay, tail = self.order
        if place >= delay:
            return self.pts[place - delay]
        count = len(self.pts)
        lead = max(self.end - self.pts[count - 1 - delay] - self.duration(count - 1 - tail), delay)
        return self.pts[0] - lead + lead * place // delay


def times_of(records: Sequence[Record], survey: Survey, *, compared: bool = False) -> Times:
    """Return the timeline of the segments' frames.

    Args:
        records: records of all segments, in order; at least one frame.
        survey: survey of the source.
        compared: whether it is for the side-by-side.
    """
    raw = [time for record in records for time in record.pts]
    tick = survey.time_base
    pts: list[int] = []
    for time, offset in zip(raw, survey.clock.pictures([time * tick for time in raw]), strict=True):
        moved = time + survey.delay + round(offset / tick)
        # Broken files repeat timestamps, which no container takes.
        pts.append(max(moved, pts[-1] + 1) if pts else moved)
    last = next(record for record in reversed(records) if record.pts)
    end = pts[-1] + (last.last_duration or max(round(1 / (survey.rate * tick)), 1))
    if survey.end is not None and survey.end > raw[-1] == survey.last_pts:
        end = pts[-1] + survey.end - raw[-1]
    packets = [record.compare_order if compared else record.order for record in records if record.pts]
    times = Times(tuple(pts), end, PacketOrder(max(order.reorder for order in packets), packets[-1].tail))
    return times.from_zero() if survey.is_range else times
