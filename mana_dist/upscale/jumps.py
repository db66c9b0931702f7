"""Timestamps that jump back, as in a capture that was begun anew: one timeline over all of it.

All streams are moved by the same, so sound keeps to its pictures. Only formats whose timestamps may jump are
looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

_LEAST = Fraction(1, 10)  # seconds; less is disorder


class Follower:
    """Counts the jumps of one stream, and tells what its times are moved by."""

    def __init__(self, offsets: Sequence[Fraction]) -> None:
        """Of a stream's beginning.

        Args:
            offsets: seconds to add after each jump, in order; with none left a jump is taken for disorder.
        """
        self._offsets = offsets
        self._jumps = 0
        self._last: Fraction | None = None

    def offset(self, time: Fraction) -> Fraction:
        """Seconds to add at ``time``, seconds, the next of the stream's."""
        if _is_jump(self._last, time) and self._jumps < len(self._offsets):
            self._jumps += 1
        self._last = time
        return self._offsets[self._jumps - 1] if self._jumps else Fraction()


@dataclass
class _Stream:
    """A stream as far as it was read: jumps, time of the last packet, and when its frames since the last jump end."""

    jumps: int = 0
    last: Fraction | None = None
    end: Fraction = Fraction()


class JumpScan:
    """Finds the offsets, from all packets in the file's order; the pictures' jumps decide."""

    def __init__(self, container: Any, video: int) -> None:
        """Before the first packet.

        Args:
            container: PyAV's.
            video: index of the stream whose jumps count.
        """
        self._looks = bool(container.format.flags & av.format.Flags.ts_discont.value)
        self._video = video
        self._streams: dict[int, _Stream] = {video: _Stream()}
        self._needed: list[Fraction] = []

    @property
    def offsets(self) -> tuple[Fraction, ...]:
        """For :class:`Follower`: as little as keeps every stream's times from going back."""
        return tuple(self._needed[: self._streams[self._video].jumps])

    def add(self, packet: Any) -> None:
        """Look at the next packet."""
        time = packet.dts if packet.dts is not None else packet.pts
        if not self._looks or time is None or not packet.time_base:
            return
        seconds = time * Fraction(packet.time_base)
        stream = self._streams.setdefault(packet.stream_index, _Stream())
        # Sound may jump a little before its pictures, not more.
        if _is_jump(stream.last, seconds) and (
            packet.stream_index == self._video or stream.jumps <= self._streams[self._video].jumps
        ):
            needed = stream.end + (self._needed[stream.jumps - 1] if stream.jumps else 0) - seconds
            if stream.jumps == len(self._needed):
                self._needed.append(needed)
            self._needed[stream.jumps] = max(self._needed[stream.jumps], needed)
            stream.jumps += 1
            stream.end = seconds
        stream.last = seconds
        shown = packet.pts if packet.pts is not None else time
        stream.end = max(stream.end, (shown + (packet.duration or 0)) * Fraction(packet.time_base))


def _is_jump(last: Fraction | None, time: Fraction) -> bool:
    return last is not None and time < last - _LEAST
