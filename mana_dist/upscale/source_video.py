"""Reading a video for upscaling: what it is, where it can be cut, and its frames with their timestamps."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any

import av

from mana_dist import storage
from mana_dist.data.config import SCALE
from mana_dist.errors import UserError
from mana_dist.model.inference import Pixels
from mana_dist.upscale import segments
from mana_dist.upscale.config import Settings
from mana_dist.upscale.jumps import Clock, JumpScan
from mana_dist.upscale.packets import Packets, decoded_at
from mana_dist.upscale.segments import Segment
from mana_dist.video.colours import Colours, colours_of, depth, rgb_of
from mana_dist.video.containers import DEFAULT_RATE, check_not_encrypted, open_input
from mana_dist.video.frame_folders import is_folder
from mana_dist.video.gops import UnreachableError
from mana_dist.video.keyframes import Cut, packets_from, scan
from mana_dist.video.orientation import quarter_turns, shown_size
from mana_dist.video.progressive import NumberedPicture, progressive
from mana_dist.video.shots import CUT_MARGIN
from mana_dist.video.stream_tags import AS_DECODED, shown

_STILL = Clock()
_ORDERED = 24  # frames whose order is looked at
_PROBED = 8  # frames after a keyframe that are compared with those of reading on from the keyframe before


@dataclass(frozen=True)
class Survey:
    """What is known of a video once all its packets were read and its first frame decoded.

    Attributes:
        uri: the file's.
        bytes: its size, where the storage tells; with ``modified`` it tells this video from another under its name.
        modified: time of its last change, seconds since the epoch.
        width: pixels of a frame, upright.
        height: pixels of a frame, upright.
        bits: of a sample.
        colours: of the first frame.
        pixel_aspect: width over height of one pixel, upright.
        time_base: seconds per tick of the frames' timestamps.
        rate: frames per second, on average.
        frames: how many there are, as far as packets tell.
        promised: how many the header tells of; None where it does not.
        last_pts: the highest timestamp; None where there is none.
        end: when the last frame is not shown any more, by the header; None where it does not tell.
        cuts: keyframes at which decoding can begin; empty: it must begin at the video's beginning.
        clock: how the times of all streams are moved.
        delay: ticks to add to the frames' times beside, where FFmpeg guessed them.
        in_turn: whether the packets' times, in their order, are those of the frames in the order of showing.
    """

    uri: str
    bytes: int | None
    modified: float | None
    width: int
    height: int
    bits: int
    colours: Colours
    pixel_aspect: Fraction
    time_base: Fraction
    rate: Fraction
    frames: int
    promised: int | None
    last_pts: int | None
    end: int | None
    cuts: tuple[Cut, ...]
    clock: Clock = _STILL
    delay: int = 0
    in_turn: bool = False


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        pixels: (H, W, 3), RGB, full range, upright; uint8, or uint16 from 0 to 65535.
        number: place in the video, in display order, as far as frames can be decoded.
        pts: presentation time in the stream's time base.
        duration: in the same; 0 where it is not told.
        errors: packets before it that the decoder refused, and 1 more if it is damaged itself.
    """

    pixels: Pixels
    number: int
    pts: int
    duration: int
    errors: int


class SourceError(UserError):
    """A video that cannot be upscaled, on whatever machine."""


def check_size(found: Survey, settings: Settings) -> None:
    """Check that the frames are large enough for the codec, and more than a pixel.

    Raises:
        SourceError: they are not.
    """
    least = settings.traits.least_side
    height, width = SCALE * found.height, SCALE * found.width
    if found.height == found.width == 1:
        raise SourceError(f"{found.uri}: its frames are of one pixel; there is nothing to upscale in them")
    if min(height, width) < least:
        raise SourceError(
            f"{found.uri}: becomes {width}x{height}, and {settings.codec} takes frames from {least}x{least} on; use "
            "--codec h264"
        )


@contextmanager
def _blamed_on_source() -> Iterator[None]:
    """What is wrong with the video itself becomes a :class:`SourceError`; its storage's errors stay what they are."""
    try:
        yield
    except UserError as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, av.FFmpegError):
            raise  # missing here, not to be read by this user, no such storage: elsewhere it may be
        raise SourceError(str(error)) from error


class Source:
    """An opened video."""

    def __init__(
        self, container: Any, video: Any, uri: str, bits: int, entry: Cut | None, *, in_turn: bool = False
    ) -> None:
        """See :func:`open_source`."""
        self.uri = uri
        self.trouble = ""
        """After :meth:`read` to the end: why it is not the video's; empty where it is."""
        self._errors = 0
        self._last_pts: int | None = None  # of the last packet
        self._refused = False  # whether the decoder refused the last packet
        self._marred_pts: int | None = None  # of the last frame that is damaged
        self.video = video
        self.has_times = False
        """Whether a packet so far has a time to be shown at."""
        self._turns: deque[int | None] | None = deque() if in_turn else None  # times of packets, for frames to come
        self._container, self._bits, self._entry = container, bits, entry

    @property
    def errors(self) -> int:
        """After :meth:`read`: packets that the decoder refused after the last frame."""
        return self._errors

    def read(self) -> Iterator[TimedFrame]:
        """The frames in display order; interlaced ones are made progressive. What cannot be decoded is left out.

        Raises:
            SourceError: encrypted, or pixels that cannot be converted.
            UnreachableError: decoding cannot begin where it should.
            OSError: the storage failed.
        """
        view = shown(self.video)
        told: dict[int, tuple[int, int, int]] = {}
        first = self._entry.number if self._entry else 0
        rate = Fraction(self.video.average_rate or self.video.guessed_rate or DEFAULT_RATE)
        tick = 1 / (rate * Fraction(self.video.time_base))

        def numbered() -> Iterator[NumberedPicture]:
            before: tuple[int, int] | None = None
            for number, picture in enumerate(self.pictures(), first):
                pts = picture.pts if self._turns is None else self._turns.popleft() if self._turns else None
                # Elementary streams have no timestamps, and not every picture of an MPEG-PS has one.
                if pts is None:
                    pts = round(number * tick) if before is None else before[1] + round((number - before[0]) * tick)
                else:
                    before = number, pts
                errors, self._errors = self._errors + bool(picture.is_corrupt), 0
                told[number] = pts, picture.duration or 0, errors
                yield NumberedPicture(number, picture)

        for number, picture in progressive(numbered()):
            with _blamed_on_source():
                pixels = rgb_of(self.uri, number, picture, self._bits, view)
            yield TimedFrame(pixels, number, *told.pop(number))

    def pictures(self) -> Iterator[Any]:
        """As :meth:`read`, PyAV's frames as they are decoded."""
        if self._entry is None:
            packets = self._container.demux(self.video)
        else:
            packets = packets_from(self._container, self.video, self._entry.pts)
        while (packet := self._next(packets)) is not None:
            with _blamed_on_source():
                check_not_encrypted(packet, self.uri)
            yield from self._decoded(packet)
        if self.trouble:  # else the last packet was the demuxer's end mark
            yield from self._decoded(None)
        elif self._refused or (self._marred_pts is not None and self._marred_pts == self._last_pts):
            self.trouble = "its last frame is cut off"

    def _next(self, packets: Iterator[Any]) -> Any | None:
        try:
            return next(packets, None)
        except av.FFmpegError as error:
            self.trouble = error.strerror
            return None

    def _decoded(self, packet: Any | None) -> Iterator[Any]:
        if packet is not None and packet.size:
            self._last_pts, self._refused = packet.pts, False
            self.has_times |= packet.pts is not None
            if self._turns is not None and not packet.is_discard:
                self._turns.append(decoded_at(packet))
        try:
            pictures = self.video.codec_context.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            self._errors += 1
            self._refused = True
            if self._turns and packet is not None:
                self._turns.pop()
            return
        for picture in pictures:
            if picture.is_corrupt:
                self._marred_pts = picture.pts
            # What comes before the keyframe that decoding began at refers to frames that are not there.
            if self._entry is None or picture.pts is None or picture.pts >= self._entry.pts:
                yield picture


@contextmanager
def open_source(
    uri: str, bits: int = 8, entry: Cut | None = None, *, in_turn: bool = False, stored_times: bool = False
) -> Iterator[Source]:
    """Open a video by its URI; it is decoded in the caller's thread alone, so that errors are always the same.

    Args:
        uri: a video file.
        bits: 8 gives uint8 pixels, more gives uint16.
        entry: the keyframe to decode from; None: the video's beginning.
        in_turn: see :class:`Survey`; only from the beginning.
        stored_times: see :func:`mana_dist.video.containers.open_input`.

    Raises:
        SourceError: no video stream that can be read.
        UserError: missing, or not to be read by this user.
        OSError: the storage failed.
    """
    if is_folder(uri):
        raise SourceError(f"{uri}: is a folder; name a video file")
    with ExitStack() as stack:
        with _blamed_on_source():
            container, video = stack.enter_context(open_input(uri, stored_times=stored_times))
        yield Source(container, video, uri, bits, entry, in_turn=in_turn)


def survey(uri: str, *, keep_gaps: bool = False) -> Survey:
    """Read all packets of a video once, and decode little of it.

    Args:
        uri: a video file.
        keep_gaps: whether jumps ahead of the clock and a late beginning are left alone.

    Raises:
        SourceError: no video that can be read, encrypted, or no frame can be decoded.
        UserError: missing, or not to be read by this user.
        OSError: the storage failed.
    """
    with open_source(uri, stored_times=True) as source:
        first = next(source.pictures(), None)
        if first is None:
            raise SourceError(f"{uri}: holds no video frame that can be decoded")
        view = shown(source.video)
        reorders = bool(source.video.codec_context.has_b_frames)
        with _blamed_on_source():
            rgb_of(uri, 0, first, 8, view)  # what cannot be converted is refused before anything is done
        width, height = shown_size(first, view.crop)
        aspect = 1 / view.pixel_aspect if quarter_turns(first) % 2 else view.pixel_aspect
    with open_input(uri) as (container, video):
        jumps = JumpScan(container, video, keep_gaps=keep_gaps)
        counted = Packets(container, video, jumps, guessed=not source.has_times)
        scanned = scan(counted, video)
        counted.finish()
        rate = Fraction(video.average_rate or video.guessed_rate or DEFAULT_RATE)
        promised = counted.promised(rate)
        time_base = Fraction(video.time_base)
        doubtful = reorders and (counted.ascending or not source.has_times)
        in_turn = counted.delay is None or (doubtful and not _shown_as_stamped(uri))
        last, end = counted.ends(in_turn=in_turn)
    clock = jumps.clock(1 / rate)
    # A time that is there twice cannot be sought.
    can_be_cut = not in_turn and not clock.goes_back and _can_be_cut(uri, scanned.cuts)
    stat = storage.stat(uri)
    return Survey(
        uri,
        stat.bytes,
        stat.modified,
        width,
        height,
        depth(first),
        colours_of(first),
        aspect,
        time_base,
        rate,
        counted.shown,
        promised,
        last,
        end,
        tuple(scanned.cuts) if can_be_cut else (),
        clock,
        0 if in_turn else counted.delay or 0,
        in_turn,
    )


def segments_of(survey: Survey, frames: int, length: int) -> tuple[Segment, ...]:
    """The segments of a video.

    Args:
        survey: of the video.
        frames: T, of the network's window.
        length: least number of frames in a segment.
    """
    return segments.plan(survey.cuts, survey.frames, length, context(frames))


def context(frames: int) -> int:
    """Frames before and after a segment that its frames' windows of T = ``frames`` and shot cuts may depend on."""
    # Windows at a shot's end look up to T - 1 frames back into it. That a frame begins a shot is told by the pictures
    # up to CUT_MARGIN away, and the one before these. One more is for deinterlacing.
    return frames + CUT_MARGIN + 3


def _shown_as_stamped(uri: str) -> bool:
    """Whether the first frames come out of the decoder in the order of their times."""
    with open_source(uri) as source:
        times = [picture.pts for picture in islice(source.pictures(), _ORDERED)]
    return None not in times and all(one < later for one, later in pairwise(times))


def _can_be_cut(uri: str, cuts: list[Cut]) -> bool:
    """Whether decoding from a keyframe gives what reading on from the one before gives; tried at three of them."""
    if len(cuts) < 2:
        return bool(cuts)
    tried = sorted({1, len(cuts) // 2, len(cuts) - 1})
    try:
        for number in tried:
            before = cuts[number - 1] if number > 1 else None
            through, anew = (_first_frames(uri, entry, cuts[number].pts) for entry in (before, cuts[number]))
            if not anew or through != anew:
                return False
    except UnreachableError:
        return False
    return True


def _first_frames(uri: str, entry: Cut | None, pts: int) -> list[tuple[int, bytes]]:
    with open_source(uri, entry=entry) as source, _blamed_on_source():
        wanted = (picture for picture in source.pictures() if picture.pts is not None and picture.pts >= pts)
        return [
            (picture.pts, rgb_of(uri, number, picture, 8, AS_DECODED).tobytes())
            for number, picture in enumerate(islice(wanted, _PROBED))
        ]
