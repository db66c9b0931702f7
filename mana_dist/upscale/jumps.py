"""Jumps of a file's clock, as where two recordings were joined: one timeline over all of it.

Which jump is closed is ffmpeg's rule (its ``dts_delta_threshold``): in formats whose clocks may jump, like MPEG-TS, a
stream that goes on more than 10 s after its last packet, or more than 0.1 s before it. Other formats pause, but two
recordings may have been put behind each other in them too: there a jump shows in a keyframe that is shown more than
0.1 s before a frame that precedes it. All streams are moved by the same, so that sound keeps to its pictures. A clock
that may jump does not begin at 0 either, but the timeline does; that of any other format does where it would begin more
than 10 s late.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

_BACK = Fraction(1, 10)  # seconds; less is disorder
_AHEAD = 10  # seconds; less is a pause
_OVERLAP = Fraction(1, 10)  # seconds of sound that may go on while the next recording's pictures begin


@dataclass(frozen=True)
class Epoch:
    """The pictures from one jump to the next.

    Attributes:
        first: the lowest of their times, seconds.
        last: the highest.
        offset: seconds to add to all times.
    """

    first: Fraction
    last: Fraction
    offset: Fraction


@dataclass(frozen=True)
class Clock:
    """The offsets of a file's times.

    Attributes:
        epochs: epochs of the pictures; at least one.
        runs: by index of a stream, the number of the epoch of each part of it without a jump.
        ahead: whether jumps ahead count.
        by_keyframes: whether keyframes show jumps back, else all packets.
    """

    epochs: tuple[Epoch, ...] = (Epoch(Fraction(), Fraction(), Fraction()),)
    runs: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    ahead: bool = False
    by_keyframes: bool = False

    @property
    def goes_back(self) -> bool:
        """Return whether a time may be there twice."""
        return any(later.first <= one.last for one, later in zip(self.epochs, self.epochs[1:], strict=False))

    @property
    def note(self) -> str:
        """Return a line about what was moved; empty if nothing was."""
        found = []
        if self.epochs[0].offset < -_AHEAD:
            found.append(f"begins at {float(-self.epochs[0].offset):.2f} s")
        if jumps := len(self.epochs) - 1:
            one, later = self.epochs[:2]
            times = f"{jumps} times, first " if jumps > 1 else ""
            found.append(f"jumps {times}from {float(one.last):.2f} to {float(later.first):.2f} s")
        if not found:
            return ""
        goes_on = "goes on" if self.by_keyframes and self.epochs[0].offset == 0 else "begins at 0 and goes on"
        kept = " (--keep-gaps keeps it)" if self.ahead or self.epochs[0].offset < -_AHEAD else ""
        return f"the source's clock {' and '.join(found)}; the result's {goes_on}{kept}"

    def pictures(self, times: Sequence[Fraction]) -> Iterator[Fraction]:
        """Yield the seconds to add to the pictures' ``times``, all of a video in the order of showing."""
        number = 0
        if times and not self.goes_back:  # else the first of a range of frames may be of any epoch
            number = max(sum(epoch.first <= times[0] for epoch in self.epochs) - 1, 0)
        before: Fraction | None = None
        for time in times:
            if before is not None and self._goes_on(number, before, time):
                number += 1
            before = time
            yield self.epochs[number].offset

    def packets(self, stream: int) -> "PacketClock":
        """Return the clock for the packets of a stream."""
        offsets = [self.epochs[number].offset for number in self.runs.get(stream, ())]
        steps = Steps(ahead=self.ahead, by_keyframes=self.by_keyframes)
        return PacketClock(offsets or [self.epochs[0].offset], steps)

    def _goes_on(self, number: int, before: Fraction, time: Fraction) -> bool:
        if number + 1 == len(self.epochs):
            return False
        one, later = self.epochs[number], self.epochs[number + 1]
        jumped = time > one.last if later.first > one.last else time < before
        return jumped and abs(time - later.first) < abs(time - before)


class PacketClock:
    """The clock of a stream, which takes its packets in the file's order."""

    def __init__(self, offsets: Sequence[Fraction], steps: "Steps") -> None:
        """Begin before the first packet; see :meth:`Clock.packets`."""
        self._offsets, self._steps = offsets, steps
        self._run = 0

    def offset(self, packet: Any) -> Fraction:
        """Return the seconds to add to the times of the next packet."""
        if self._steps.add(packet):
            self._run += 1
        return self._offsets[min(self._run, len(self._offsets) - 1)]


class Steps:
    """The detector of one stream's jumps."""

    def __init__(self, *, ahead: bool, by_keyframes: bool) -> None:
        """Begin before the first packet; the arguments are :class:`Clock`'s."""
        self._ahead, self._by_keyframes = ahead, by_keyframes
        self._last: Fraction | None = None
        self._end = Fraction()

    def add(self, packet: Any) -> bool:
        """Return whether the next packet comes after a jump."""
        if self._by_keyframes:
            return self._is_behind(packet)
        time = _decoded_at(packet)
        jumped = self._last is not None and (time < self._last - _BACK or (self._ahead and time > self._end + _AHEAD))
        self._last, self._end = time, time + (packet.duration or 0) * Fraction(packet.time_base)
        return jumped

    def _is_behind(self, packet: Any) -> bool:
        """Return whether it is a keyframe that is shown before what precedes it; within a recording none is."""
        time = _decoded_at(packet) if packet.pts is None else packet.pts * Fraction(packet.time_base)
        jumped = self._last is not None and bool(packet.is_keyframe) and time < self._last - _BACK
        self._last = time if jumped or self._last is None else max(self._last, time)
        return jumped


@dataclass
class _Run:
    """A part of a stream without a jump: its times in seconds, and its places in the file, counted in packets.

    What is ``guessed`` comes beyond its ``end``.
    """

    first: Fraction
    last: Fraction
    end: Fraction
    begin: int
    stop: int
    guessed: Fraction = Fraction()
    packets: int = 1

    def step(self, frame: Fraction) -> Fraction:
        """Return how long the last picture is shown: as its packet says, or as most are if that is too short."""
        usual = (self.last - self.first) / (self.packets - 1) if self.packets > 1 else frame
        return self.end - self.last if self.end - self.last > usual / 2 else usual

    def distance(self, other: "_Run") -> Fraction:
        """Return the seconds between this and ``other``; 0 if they overlap."""
        return max(other.first - self.end, self.first - other.end, Fraction())


class JumpScan:
    """The detector of jumps, from all packets in the file's order; those of the pictures decide."""

    def __init__(self, container: Any, video: Any, *, keep_gaps: bool) -> None:
        """Begin before the first packet.

        Args:
            container: PyAV's.
            video: its stream whose jumps count.
            keep_gaps: whether to leave alone jumps ahead and a late beginning.
        """
        self._jumps = bool(container.format.flags & av.format.Flags.ts_discont.value)
        self._keep = keep_gaps
        self._timed = {stream.index for stream in container.streams if stream.type in ("audio", "video")}
        self._video = video.index
        self._steps = defaultdict[int, Steps](
            lambda: Steps(ahead=self._jumps and not keep_gaps, by_keyframes=not self._jumps)
        )
        self._runs = defaultdict[int, list[_Run]](list)
        self._count = 0

    def add(self, packet: Any) -> None:
        """Take in the next packet."""
        self._count += 1
        if packet.is_discard or not packet.time_base or (packet.dts is None and packet.pts is None):
            return
        jumped = self._steps[packet.stream_index].add(packet)
        tick = Fraction(packet.time_base)
        decoded = _decoded_at(packet)
        time = packet.pts * tick if packet.pts is not None else decoded
        runs = self._runs[packet.stream_index]
        if runs and not jumped and abs(time - decoded) > _AHEAD:
            # FFmpeg guessed it from a packet after the jump: it is the last picture before.
            runs[-1].guessed += (packet.duration or 0) * tick
            return
        end = time + (packet.duration or 0) * tick
        if jumped or not runs:
            runs.append(_Run(time, time, end, self._count, self._count))
        else:
            run = runs[-1]
            run.first, run.last, run.end = min(run.first, time), max(run.last, time), max(run.end, end)
            run.stop = self._count
            run.packets += 1

    def clock(self, frame: Fraction) -> Clock:
        """Return what was found; ``frame`` is a picture's duration in seconds, for packets that state none."""
        pictures = self._pictures()
        if not pictures:
            return Clock()
        begins = [run.begin for run in pictures]
        placed = {
            index: tuple(self._epoch(run, pictures, begins) for run in runs) if index != self._video else ()
            for index, runs in self._runs.items()
        }
        offsets = [-self._beginning(pictures[0].first, placed)]
        for number in range(1, len(pictures)):
            before = pictures[number - 1]
            needed = before.last + before.step(frame) + before.guessed + offsets[-1] - pictures[number].first
            ends, starts = (self._others(placed, epoch) for epoch in (number - 1, number))
            for index in starts.keys() & ends.keys():
                overlap = ends[index][-1].end + offsets[-1] - starts[index][0].first
                needed = max(needed, overlap - _OVERLAP)
            offsets.append(needed)
        epochs = (Epoch(run.first, run.last, offset) for run, offset in zip(pictures, offsets, strict=True))
        return Clock(tuple(epochs), placed, self._jumps and not self._keep, by_keyframes=not self._jumps)

    def _pictures(self) -> list[_Run]:
        """Return the pictures' runs; those that one run of sound goes with are one: the clock did not jump."""
        found: list[_Run] = []
        sound = [run for index in self._timed - {self._video} for run in self._runs.get(index, ())]
        for run in self._runs.get(self._video, ()):
            if found and any(_goes_with(other, found[-1], run) for other in sound):
                before = found.pop()
                times = min(before.first, run.first), max(before.last, run.last), max(before.end, run.end)
                found.append(_Run(*times, before.begin, run.stop, run.guessed, before.packets + run.packets))
            else:
                found.append(run)
        return found

    def _epoch(self, run: _Run, pictures: Sequence[_Run], begins: Sequence[int]) -> int:
        """Return the epoch of another stream's run: where most of it lies, or one beside it that fits its times.

        Sound lies a little before or behind its pictures.
        """
        number = max(bisect_right(begins, (run.begin + run.stop) // 2) - 1, 0)
        beside = range(max(number - 1, 0), min(number + 2, len(pictures)))
        return min(beside, key=lambda other: (run.distance(pictures[other]), abs(other - number)))

    def _others(self, placed: Mapping[int, Sequence[int]], epoch: int) -> dict[int, list[_Run]]:
        """Return the runs of sound of an epoch."""
        found = defaultdict(list)
        for index, numbers in placed.items():
            for run, number in zip(self._runs[index], numbers, strict=False):
                if number == epoch and index in self._timed:
                    found[index].append(run)
        return found

    def _beginning(self, first: Fraction, placed: Mapping[int, Sequence[int]]) -> Fraction:
        """Return the time that becomes 0."""
        begins = [first, *(runs[0].first for runs in self._others(placed, 0).values())]
        late = min(begins)
        return late if not self._keep and (self._jumps or late > _AHEAD) else Fraction()


def _goes_with(sound: _Run, before: _Run, after: _Run) -> bool:
    """Return whether a run of sound goes on where pictures jump: from one's middle to the other's."""
    begins, ends = ((run.begin + run.stop) // 2 for run in (before, after))
    return sound.begin < begins and sound.stop > ends and sound.last >= after.first


def _decoded_at(packet: Any) -> Fraction:
    return (packet.dts if packet.dts is not None else packet.pts) * Fraction(packet.time_base)
