"""Keyframes at which a video can be cut, and packets from one of them on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import av

from mana_dist.video.containers import UNREADABLE
from mana_dist.video.gops import UnreachableError

_SEEK_BACK = (0, 1, 10)  # seconds; what lands too late is tried again from further back


class Cut(NamedTuple):
    """A keyframe: its timestamp, in the stream's units, and its place in display order."""

    pts: int
    number: int


class Scan(NamedTuple):
    """The keyframes to cut at, and the number of frames; no cuts if timestamps are missing or not unique."""

    cuts: list[Cut]
    frames: int


@dataclass
class _Group:
    """A group of pictures while it is being counted.

    Attributes:
        key: pts of its keyframe.
        first: number of its first frame.
        earlier: the highest pts of all groups before.
        can_cut: whether the keyframe is shown.
        leading: frames shown before the keyframe.
        lowest: the lowest pts in it.
    """

    key: int
    first: int
    earlier: int | None
    can_cut: bool
    lowest: int
    leading: int = 0

    def cut(self) -> list[Cut]:
        apart = self.earlier is None or self.lowest > self.earlier
        return [Cut(self.key, self.first + self.leading)] if self.can_cut and apart else []


def scan(packets: Iterable[Any]) -> Scan:
    """Find the keyframes among a stream's packets. What is shown before the first keyframe is shown does not count."""
    cuts: list[Cut] = []
    frames = 0
    group: _Group | None = None
    seen: set[int] = set()  # in this group; groups that overlap are not cut apart
    highest: int | None = None
    for packet in packets:
        pts = packet.pts
        if group is None and not packet.is_keyframe:
            continue
        if pts is None:
            return Scan([], 0)
        if packet.is_keyframe:
            cuts += group.cut() if group is not None else []
            group = _Group(pts, frames, highest, not packet.is_discard, pts)
            seen.clear()
        if group is None or pts in seen:
            return Scan([], 0)
        seen.add(pts)
        if pts < group.key and group.earlier is None:
            continue  # leads the very first keyframe: left out by all who read
        group.leading += pts < group.key and not packet.is_discard
        group.lowest = min(group.lowest, pts)
        highest = pts if highest is None else max(highest, pts)
        frames += not packet.is_discard
    return Scan(cuts + (group.cut() if group is not None else []), frames)


def spaced(cuts: Sequence[Cut], first: int, end: int, length: int, least_at_end: int) -> list[Cut]:
    """Choose the earliest cuts that lie at least ``length`` frames apart.

    Args:
        cuts: keyframes, ascending.
        first: number of the frame that the first choice keeps its distance from.
        end: number of the first frame after the last.
        length: least number of frames between two choices.
        least_at_end: least number of frames from the last choice to ``end``.
    """
    chosen: list[Cut] = []
    for cut in cuts:
        if cut.number - first >= length and end - cut.number >= least_at_end:
            chosen.append(cut)
            first = cut.number
    return chosen


def entry_before(cuts: Sequence[Cut], number: int) -> Cut | None:
    """Return the last keyframe at or before frame ``number``; None: the video's beginning."""
    return next((cut for cut in reversed(cuts) if 0 < cut.number <= number), None)


def packets_from(container: Any, stream: Any, pts: int) -> Iterator[Any]:
    """Yield the packets of ``stream`` from the keyframe with this timestamp on.

    Raises:
        UnreachableError: seeking does not lead to it.
    """
    for seconds in _SEEK_BACK:
        try:
            container.seek(pts - round(seconds / stream.time_base), stream=stream)
        except av.FFmpegError:
            continue
        packets = container.demux(stream)
        key = _first_key(packets, pts)
        if key is not None and key.pts == pts:
            yield key
            yield from packets
            return
    raise UnreachableError(f"no keyframe at {pts}")


def _first_key(packets: Iterator[Any], pts: int) -> Any | None:
    """Return the first keyframe at ``pts`` or after."""
    try:
        return next(packet for packet in packets if packet.is_keyframe and packet.pts is not None and packet.pts >= pts)
    except (StopIteration, *UNREADABLE):
        return None


def readable(container: Any, *streams: Any) -> Iterator[Any]:
    """Read the packets of ``streams``, or of all streams, up to the first that cannot be read."""
    try:
        yield from (packet for packet in container.demux(*streams) if packet.size)
    except UNREADABLE:
        return
