"""Counts and times of a video's packets, and whether the times can be trusted."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from mana_dist.upscale.jumps import JumpScan
from mana_dist.video.containers import decoded_at, promised_packets
from mana_dist.video.keyframes import readable


class Packets:
    """The packets of a container, counted while the caller reads those of one stream.

    Attributes:
        shown: packets of the stream that stand for a frame.
        ascending: whether the times to show them at ascend, as if no frame were shown out of the order of packets.
    """

    def __init__(self, container: Any, video: Any, jumps: JumpScan, *, guessed: bool) -> None:
        """Begin before the first packet.

        Args:
            container: PyAV's.
            video: its stream to count.
            jumps: is shown all packets.
            guessed: whether FFmpeg guesses when frames are shown, from when they are decoded.
        """
        self.shown = 0
        self.ascending = True
        self._container, self._video, self._jumps, self._guessed = container, video, jumps, guessed
        self._hidden = self._last_duration = 0
        self._last: int | None = None  # the highest time
        self._before: int | None = None
        self._last_decoded: int | None = None
        self._end = Fraction()  # of all streams, seconds
        self._times: tuple[list[int], list[int]] = [], []  # guessed: to show, to decode

    def read(self) -> Iterator[Any]:
        """Read all packets, and give those of the stream that is counted."""
        for packet in readable(self._container):
            self._jumps.add(packet)
            if packet.pts is not None and packet.time_base:
                self._end = max(self._end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream_index == self._video.index:
                self._count(packet)
                yield packet

    @property
    def delay(self) -> int | None:
        """Ticks to add to guessed times, so that frames are shown at the packets' times; None: no number does."""
        shown, decoded = map(sorted, self._times)
        if not shown and not decoded:
            return 0
        apart = {one - other for one, other in zip(decoded, shown, strict=False)}
        return apart.pop() if len(shown) == len(decoded) and len(apart) == 1 else None

    def ends(self, *, in_turn: bool) -> tuple[int | None, int | None]:
        """Return the highest time of a frame, and the end of that frame by the header; None: not stored."""
        last = self._last_decoded if in_turn else self._last
        if last is None:
            return None, None
        video, container = self._video, self._container
        # An edit list may end within the last frame, or show it for long. Some mp4 files have too short a duration.
        if video.duration is not None and (video.start_time or 0) + video.duration > last:
            return last, int((video.start_time or 0) + video.duration)
        ends = [last + self._last_duration] if self._last_duration else []
        if container.duration:  # of all streams
            end = Fraction((container.start_time or 0) + container.duration, av.time_base)
            ends.append(round(end / video.time_base))
        return last, min((end for end in ends if end > last), default=None)

    def promised(self, rate: Fraction) -> int | None:
        """Return the number of frames that the header promises; ``rate`` is in frames per second."""
        matroska = "matroska" in self._container.format.name
        if self._video.frames and not matroska:
            end = (self._last or 0) + self._last_duration
            return promised_packets(self._container, self._video, self.shown + self._hidden, end) - self._hidden
        # Matroska's header has no count, but a duration; of all streams together.
        if matroska and self._container.duration:
            missing = Fraction(self._container.duration, av.time_base) - self._end
            if missing > 2 / rate:
                return self.shown + round(missing * rate)
        return None

    def _count(self, packet: Any) -> None:
        if packet.is_discard:
            self._hidden += 1
            return
        self.shown += 1
        self.ascending &= packet.pts is not None and (self._before is None or packet.pts > self._before)
        self._before = packet.pts
        if packet.pts is not None and (self._last is None or packet.pts > self._last):
            self._last, self._last_duration = packet.pts, packet.duration or 0
        decoded = decoded_at(packet)
        self._last_decoded = decoded if decoded is not None else self._last_decoded
        if self._guessed:
            shown, decoding = self._times
            shown += [] if packet.pts is None else [packet.pts]
            decoding += [] if packet.dts is None else [packet.dts]
