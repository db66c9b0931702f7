"""Decoding of a video by groups of pictures, which are either right or marked as damaged.

A group (GOP) is a keyframe's packet and those after it, up to the next keyframe. The frames of a group stand together
in display order as well, so they are numbered by counting. Damage shows as an error of the decoder or the container,
as a frame that FFmpeg marks as corrupt, or as a part of a frame that was never decoded. From there on the frames of the
group, and those that refer to them, are given as the decoder makes them, with the mark.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import av

from mana_dist.errors import UserError
from mana_dist.video.containers import UNREADABLE, check_not_encrypted, decoded_at
from mana_dist.video.continuity import Checked, checked
from mana_dist.video.damage_signs import Holes, NalSyntax, heard
from mana_dist.video.progressive import NumberedPicture

_MOST_LEADING = 32
"""Largest number of packets after a keyframe that are shown before it; more of them mean broken timestamps."""
GAP = "frames are missing"
"""The reason of a :class:`Loss` that stands for frames which the file does not hold."""
_NO_REFERENCE = "Could not find ref with POC"  # FFmpeg's HEVC decoder, which stops at it
_MOST_PIXELS = 2**26  # a damaged header must not ask for all memory; 8K has half of that


class UnreachableError(Exception):
    """Error: decoding cannot begin at this keyframe."""


class _Origin(NamedTuple):
    """The mark that travels with a packet through the decoder to its frame."""

    gop: "_Gop"
    is_key: bool = False
    is_last: bool = False
    is_after_gap: bool = False
    is_wanted: bool = True


class Loss(NamedTuple):
    """Frames that cannot be trusted.

    Attributes:
        first: number of the first.
        end: number of the first that can be trusted again.
        reason: what was wrong.
        torn: whether the file just ends or has a hole there; else it holds wrong bytes.
        is_gap: whether the file does not hold them, and what it holds around them is right.
    """

    first: int
    end: int
    reason: str
    torn: bool
    is_gap: bool = False


@dataclass(eq=False)
class _Gop:
    """The state of a group of pictures.

    Attributes:
        before: the group before it, as long as ``start`` is unknown.
        start: number of its first frame.
        packets: packets that stand for a frame.
        shown: frames given by the decoder, and those left out at its beginning.
        leading: frames before its keyframe.
        fresh: whether decoding began anew here: what is shown before the keyframe refers to frames that are not there.
        key_shown: whether its keyframe has come out of the decoder.
        trouble: what is wrong with it; empty where nothing is.
        trailing: frames of the next group that come before its keyframe, and are decoded with this damaged one.
        torn: how many of its frames are right nonetheless, if it is cut off; None: none of them.
    """

    before: "_Gop | None"
    start: int | None
    fresh: bool
    packets: int = 0
    shown: int = 0
    leading: int = 0
    key_shown: bool = False
    trouble: str = ""
    trailing: int = 0
    torn: int | None = None

    def loss(self, first: int) -> Loss:
        """Return what is lost of a damaged group whose first frame has this number."""
        return Loss(first + (self.torn or 0), first + max(self.packets, 1), self.trouble, self.torn is not None)


@dataclass
class GopDecoder:
    """The decoder of a stream.

    Attributes:
        uri: for errors.
        stream: PyAV's, not yet decoded from.
        packets: those to decode; decoding begins at the first keyframe.
        first: the number of that.
        by_packets: whether frames are numbered by the packets before them, as when parts of a video are read apart;
            else by the frames that an undamaged video shows.
        exact: whether the first keyframe must be the first frame shown.
        in_turn: whether frames, in the order of display, have the packets' times of decoding, in the packets' order.
        gops: how many groups were begun.
        is_at_end: whether all was read and decoded.
        count: packets read so far that hold a picture.
        end: when the last of these ends, in the stream's units.
        cut_off: why nothing can be read beyond the last frame; empty where it is the video's, as far as seen.
    """

    uri: str
    stream: Any
    packets: Iterable[Any]
    first: int = 0
    by_packets: bool = False
    exact: bool = False
    in_turn: bool = False
    gops: int = field(default=0, init=False)
    is_at_end: bool = field(default=False, init=False)
    count: int = field(default=0, init=False)
    end: int = field(default=0, init=False)
    cut_off: str = field(default="", init=False)
    _damaged: list[_Gop] = field(default_factory=list, init=False)
    _spoiled: list[_Gop] = field(default_factory=list, init=False)
    _ahead: deque[Checked | str] = field(default_factory=deque, init=False)
    _gop: _Gop | None = field(default=None, init=False)
    _is_new: bool = field(default=True, init=False)
    _gaps: list[Loss] = field(default_factory=list, init=False)
    _turns: deque[int | None] = field(default_factory=deque, init=False)  # of packets whose frames are to come

    def __post_init__(self) -> None:
        """Make the decoder strict."""
        self._context = self.stream.codec_context
        self._context.thread_type = "NONE"  # errors come up where they are, and always the same
        self._context.thread_count = 1
        self._context.copy_opaque = True
        # FFmpeg marks the H.264 frames whose errors it conceals. In its log are also references from before an open
        # group's keyframe that a picture after it discards; they are not there when decoding begins anew.
        self._marks_all = self._context.name == "h264"
        options = {"err_detect": "crccheck+bitstream+buffer+aggressive", "max_pixels": str(_MOST_PIXELS)}
        if "dav1d" in self._context.codec.name:
            options["strict"] = "1"  # makes it look whether the arithmetic decoder ends where it should
        self._context.options = options
        self._holes = Holes() if self._context.name == "hevc" else None
        self._syntax = NalSyntax.of(self._context)
        self._input = checked(self._counted(), self.stream)

    @property
    def damaged(self) -> bool:
        """Return whether damage has come up so far."""
        return bool(self._damaged or self._gaps)

    def losses(self) -> list[Loss]:
        """Return all damage met so far, in order."""
        losses = [gop.loss(self._start_of(gop)) for gop in self._damaged]
        leading = [
            Loss(self._start_of(gop), self._start_of(gop) + gop.leading, "", torn=True)
            for gop in self._spoiled
            if gop.leading
        ]
        return sorted(losses + leading + self._gaps)

    def read(self) -> Iterator[NumberedPicture]:
        """Decode the frames in display order; the numbers of those that are missing are left out.

        Those that are not marked as damaged have ascending numbers. A frame before an error of its group has no mark:
        :meth:`losses` lists all.

        Raises:
            UserError: encrypted, or no keyframe.
            UnreachableError: ``exact``, and the first keyframe is not the first frame shown.
        """
        last = -1
        for frame in self._shown():
            if frame.damaged:
                yield frame
            elif frame.number > last:
                last = frame.number
                yield frame

    def _shown(self) -> Iterator[NumberedPicture]:
        while (item := self._next()) is not None:
            if isinstance(item, str):
                self._tear(item, self._gop)
                continue
            check_not_encrypted(item.packet, self.uri)
            if item.lacks_reference:
                self._tear(GAP, self._gop)
            if item.packet.is_keyframe:
                yield from self._begin(item.packet)
            if self._gop is not None:
                yield from self._decode(item, self._gop)
        if self._gop is None:
            raise UserError(f"{self.uri}: holds no keyframe, so no frame of it can be decoded")
        yield from self._drained()
        self.is_at_end = True

    def _counted(self) -> Iterator[Any]:
        for item in _packets_of(self.packets):
            if not isinstance(item, str) and item.size:
                self.count += 1
                self.end = max(self.end, (item.pts or 0) + (item.duration or 0))
            yield item

    def _next(self) -> Checked | str | None:
        item = self._ahead.popleft() if self._ahead else next(self._input, None)
        if not self._ahead and (following := next(self._input, None)) is not None:
            self._ahead.append(following)
        return item

    def _begin(self, key: Any) -> Iterator[NumberedPicture]:
        """Open the group of this keyframe; after damage, begin anew: what refers to frames before it is damaged too."""
        before = self._gop
        fresh = before is None or bool(before.trouble)
        leading = self._leading(key)
        if fresh:
            skipped = [self._ahead.popleft() for _ in range(leading)]
            if before is not None and leading:
                before.trailing = leading
                packets = [key, *(item.packet for item in skipped if isinstance(item, Checked))]
                for packet in packets:  # as they are after the damage; the keyframe's picture comes again, anew
                    yield from self._show_all(self._decoded(packet, _Origin(before, is_wanted=packet is not key))[-1])
            yield from self._drained()
        gop = self._gop = _Gop(before, start=self.first if before is None else None, fresh=fresh, leading=leading)
        gop.key_shown = key.is_discard  # will not be: an edit list begins after it
        self.gops += 1
        if before is not None and before.trouble:
            gop.packets = gop.shown = gop.leading
            self._start_of(gop)

    def _leading(self, key: Any) -> int:
        """Return how many packets after ``key`` are shown before it."""
        if key.pts is None:
            return 0
        while len(self._ahead) <= _MOST_LEADING and (not self._ahead or _is_leading(self._ahead[-1], key)):
            item = next(self._input, None)
            if item is None:
                break
            self._ahead.append(item)
        count = sum(_is_leading(item, key) for item in self._ahead)
        return count if count <= _MOST_LEADING else 0

    def _decode(self, item: Checked, gop: _Gop) -> Iterator[NumberedPicture]:
        packet = item.packet
        gop.packets += (not packet.is_discard) + item.is_after_gap
        if packet.is_corrupt:
            self._tear("a part of it is missing", gop)
        elif not gop.trouble and self._syntax is not None and self._syntax.is_broken(bytes(packet)):
            self._fail(gop, "it holds bytes that cannot be there")
        is_last = not self._ahead or isinstance(self._ahead[0], str)
        origin = _Origin(gop, packet.is_keyframe, is_last, item.is_after_gap)
        trouble, log, pictures = self._decoded(packet, origin)
        if trouble and is_last:
            self._tear("its end is cut off", gop)
        elif any(line.startswith(_NO_REFERENCE) for line in log):
            self._tear(GAP, gop)
        elif trouble and not gop.trouble:
            self._fail(gop, trouble)
        yield from self._show_all(pictures)

    def _decoded(self, packet: Any, origin: _Origin) -> tuple[str, list[str], list[Any]]:
        """Decode a packet: what is wrong with it, FFmpeg's log of it, and the pictures that come out after it."""
        packet.opaque = origin
        self._is_new = False
        if is_shown := origin.is_wanted and not packet.is_discard:
            self._turns.append(decoded_at(packet))
        trouble, pictures = "", list[Any]()
        try:
            with heard() as log:
                pictures = self._context.decode(packet)
        except av.FFmpegError as error:
            trouble = error.strerror
            if is_shown:
                self._turns.pop()
        if log and not self._marks_all:
            trouble = trouble or log[0]
        return trouble, log, pictures

    def _tear(self, reason: str, gop: _Gop | None) -> None:
        """Mark that the file has a hole here: what was shown is right, what is still in the decoder may have gaps."""
        if not self._ahead:
            self.cut_off = self.cut_off or reason
        if gop is not None and not gop.trouble:
            gop.trouble, gop.torn = reason, gop.shown
            gop.packets = max(gop.packets, gop.shown + 1)  # something is missing: no frame may follow the last shown
            self._damaged.append(gop)

    def _fail(self, gop: _Gop, reason: str) -> None:
        """Mark the whole group, which has no mark yet, as damaged."""
        gop.trouble, gop.torn = reason, None
        self._damaged.append(gop)

    def _drained(self) -> Iterator[NumberedPicture]:
        """Take out what the decoder still holds; it is as new then."""
        if self._is_new:
            return
        try:
            with heard():
                pictures = self._context.decode(None)
        except av.FFmpegError:
            pictures = []
        self._context.flush_buffers()
        self._is_new = True
        yield from self._show_all(pictures)
        self._turns.clear()

    def _show_all(self, pictures: list[Any]) -> Iterator[NumberedPicture]:
        for picture in pictures:
            origin = picture.opaque
            if isinstance(origin, _Origin) and origin.is_last and self._flaw(picture):
                self._tear("its end is cut off", origin.gop)  # so what else comes at the end may have gaps
        for picture in pictures:
            yield from self._show(picture)

    def _show(self, picture: Any) -> Iterator[NumberedPicture]:
        origin = picture.opaque
        if not isinstance(origin, _Origin):  # a decoder that does not pass it on
            if self._gop is None:
                return
            origin = _Origin(self._gop, is_key=True)
        gop = origin.gop
        start = self._start_of(gop)
        if origin.is_after_gap:
            if not gop.trouble:
                self._gaps.append(Loss(start + gop.shown, start + gop.shown + 1, GAP, torn=True, is_gap=True))
            gop.shown += 1
        number = start + gop.shown
        if gop.trouble:  # a damaged packet may give two frames: none has a number of the group after
            number = min(number, start + max(gop.packets, 1) + gop.trailing - 1)
        gop.shown += 1
        gop.key_shown = gop.key_shown or origin.is_key
        if self.exact and self.gops == 1 and not (gop.key_shown or gop.trouble):
            raise UnreachableError(f"{self.uri}: frame {number} cannot be the first to be decoded")
        if not gop.trouble and (flaw := self._flaw(picture)):
            self._fail(gop, flaw)
        is_right = not gop.trouble and (gop.key_shown or not (gop.fresh or gop in self._spoiled))
        if origin.is_wanted:
            turn = self._turns.popleft() if self._turns else None
            time = turn if self.in_turn else picture.pts
            yield NumberedPicture(number, picture, not is_right, time, picture.duration or 0)
        if self._holes is not None:
            self._holes.retire(picture)

    def _flaw(self, picture: Any) -> str:
        if picture.is_corrupt:
            return "the decoder had to conceal errors"
        if self._holes is not None and self._holes.has(picture):
            return "parts of frames are not there"
        return ""

    def _start_of(self, gop: _Gop) -> int:
        """Return the number of a group's first frame; all frames of the group before must have come out, or be lost."""
        unknown = [gop]
        while unknown[-1].start is None and unknown[-1].before is not None:
            unknown.append(unknown[-1].before)
        for group in reversed(unknown):
            before = group.before
            if group.start is None and before is not None and before.start is not None:
                by_packets = self.by_packets or bool(before.trouble)
                group.start = before.start + (max(before.packets, 1) if by_packets else before.shown)
                if before.trouble:
                    self._spoiled.append(group)
            group.before = None
        if gop.start is None:
            raise AssertionError("the first group has a start")
        return gop.start


def _is_leading(item: Checked | str, key: Any) -> bool:
    if isinstance(item, str) or item.packet.is_keyframe:
        return False
    return item.packet.pts is not None and item.packet.pts < key.pts


def _packets_of(packets: Iterable[Any]) -> Iterator[Any]:
    """Yield the packets, and a line of text where the container is damaged."""
    iterator = iter(packets)
    while True:
        try:
            with heard() as log:
                packet = next(iterator, None)
        except UNREADABLE as error:
            yield error.strerror if isinstance(error, av.FFmpegError) else "a stream comes up late"
            return
        if log:
            yield log[0]
        if packet is None:
            return
        yield packet
