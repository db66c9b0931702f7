"""Detection of missing packets, by the counters in the pictures' headers and by time stamps."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low
from typing import Any, NamedTuple

import av

from mana_dist.video.picture_headers import NO_HEADER, HeaderReader, PictureHeader

_AROUND = 20
"""Packets compared before and after each: more than pictures move between decoding and display."""
_REORDERED = 6
"""Packets back from a gap that may refer to the missing picture, where pictures are shown in another order."""
_LEAST_STEPS = 4
"""Least number of steps between pictures before one of them counts as too long."""
_SURE = frozenset({"h264", "hevc"})  # a decoder, or a count of reference pictures, tells whether one is missing


class Checked(NamedTuple):
    """A packet, and whether others are missing before it.

    Attributes:
        packet: PyAV's.
        is_after_gap: whether pictures are missing just before it in display order.
        lacks_reference: whether it may refer to a missing picture, directly or by others.
    """

    packet: Any
    is_after_gap: bool = False
    lacks_reference: bool = False


@dataclass(eq=False)
class _Place:
    """A packet among its neighbours, or a line about damage of the container."""

    item: Any
    pts: int | None
    header: PictureHeader
    is_after_gap: bool = False
    lacks_reference: bool = False

    @property
    def is_hidden(self) -> bool:
        """Return whether an edit list hides it, or it has no picture: so an AVI says that the one before lasts."""
        return isinstance(self.item, str) or self.item.is_discard or not self.item.size


def checked(items: Iterable[Any], stream: Any) -> Iterator[Checked | str]:
    """Pass on packets, in the order of decoding, with what is missing before them; those without a picture are dropped.

    Args:
        items: PyAV packets, and lines of text, which are passed on.
        stream: PyAV's, of the packets.
    """
    headers = HeaderReader(stream)
    format_ = stream.container.format
    # For formats without time stamps FFmpeg makes them up. An AVI counts frames, also those that were never coded, and
    # in the order of decoding.
    is_timed = format_.name != "avi" and not format_.flags & av.format.Flags.no_timestamps.value
    tick = float(stream.time_base) if is_timed and stream.time_base else None
    places: deque[_Place] = deque()
    ahead = _AROUND + _REORDERED
    begun = 0  # how many of ``places`` were passed on
    for item in items:
        if isinstance(item, str):
            places.append(_Place(item, None, NO_HEADER))
        else:
            pts = item.pts if is_timed else None
            places.append(_Place(item, pts, headers.read(item) if item.size else NO_HEADER))
        _judge(places, len(places) - 1 - _AROUND, tick, headers.codec)
        if len(places) - begun > ahead:
            yield from _passed(places[begun])
            begun += 1
        if begun > _AROUND:
            places.popleft()
            begun -= 1
    for index in range(max(0, len(places) - _AROUND), len(places)):
        _judge(places, index, tick, headers.codec)
    for index in range(begun, len(places)):
        yield from _passed(places[index])


def _passed(place: _Place) -> Iterator[Checked | str]:
    if isinstance(place.item, str):
        yield place.item
    elif place.item.size:
        lacks = place.lacks_reference or place.header.lacks_reference
        yield Checked(place.item, place.is_after_gap, lacks)


def _judge(places: deque[_Place], index: int, tick: float | None, codec: str) -> None:
    """Find out whether pictures are missing before the one at ``index``."""
    if index < 0 or places[index].is_hidden:
        return
    place = places[index]
    near = [other for other in places if not isinstance(other.item, str)]
    before = _shown_before(place, near)
    if before is None or before.is_hidden:
        return
    place.is_after_gap = _is_gap(before, place, near, tick)
    if not place.is_after_gap or codec in _SURE:
        return
    pts = [other.pts for other in near if other.pts is not None]
    is_reordered = pts != sorted(pts)
    for other in list(places)[max(0, index - _REORDERED) if is_reordered else index : index + 1]:
        other.lacks_reference = True


def _shown_before(place: _Place, near: list[_Place]) -> _Place | None:
    """Return the picture that is shown just before this one, hidden or not."""
    if place.pts is not None:
        timed = [other for other in near if other.pts is not None and other.pts < place.pts]
        return max(timed, key=lambda other: other.pts or 0, default=None)
    order = place.header.order
    if order is None:
        return None
    counted = [other for other in near if _order(other, place.header.epoch) is not None]
    earlier = [other for other in counted if (other.header.order or 0) < order]
    return max(earlier, key=lambda other: other.header.order or 0, default=None)


def _order(place: _Place, epoch: int) -> int | None:
    return place.header.order if place.header.epoch == epoch else None


def _is_gap(before: _Place, place: _Place, near: list[_Place], tick: float | None) -> bool:
    timed = _is_late(before, place, near, tick)
    first, second = (_order(one, place.header.epoch) for one in (before, place))
    if first is None or second is None or second < first:
        return bool(timed)
    places = {(other.header.epoch, other.header.order) for other in near if other.header.order is not None}
    steps = [after - one for (epoch, one), (other, after) in pairwise(sorted(places)) if epoch == other]
    usual = min(steps, default=0)
    is_even = len(steps) >= _LEAST_STEPS and 2 * steps.count(usual) >= len(steps)
    # Some encoders leave numbers out, but not time; cameras leave frames out, but not numbers.
    return is_even and second - first >= 2 * usual and timed is not False


def _is_late(before: _Place, place: _Place, near: list[_Place], tick: float | None) -> bool | None:
    """Return whether time is missing between the two; None where frames come at no steady rate, or without times."""
    if tick is None or place.pts is None or before.pts is None:
        return None
    times = sorted({other.pts for other in near if other.pts is not None})
    steps = [after - one for one, after in pairwise(times)]
    if len(steps) < _LEAST_STEPS:
        return None
    usual = median_low(steps)
    rounding = max(1.0, 0.0011 / tick)  # many files have come through one that counts milliseconds
    if 4 * sum(abs(step - usual) <= rounding for step in steps) < 3 * len(steps):
        return None
    return place.pts - before.pts >= 1.75 * usual
