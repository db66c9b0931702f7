"""Reading a video for upscaling: what it is, where it can be cut, and its frames with their timestamps."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import av

from mana_dist import storage
from mana_dist.data.settings import CUT_MARGIN
from mana_dist.errors import UserError
from mana_dist.inference import Pixels
from mana_dist.upscale import segments
from mana_dist.upscale.jumps import JumpScan
from mana_dist.upscale.segments import Segment
from mana_dist.video.colours import Colours, colours_of, depth, pixels_of
from mana_dist.video.containers import DEFAULT_RATE, check_not_encrypted, open_input, promised_packets
from mana_dist.video.frame_folders import is_folder
from mana_dist.video.gops import UnreachableError
from mana_dist.video.keyframes import Cut, packets_from, scan
from mana_dist.video.orientation import quarter_turns
from mana_dist.video.progressive import NumberedPicture, progressive

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
        offsets: seconds to add to all times after each of their jumps back.
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
    offsets: tuple[Fraction, ...] = ()


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

    def __init__(self, container: Any, video: Any, uri: str, bits: int, entry: Cut | None) -> None:
        """See :func:`open_source`."""
        self.uri = uri
        self.trouble = ""
        """After :meth:`read` to the end: why it is not the video's; empty where it is."""
        self._errors = 0
        self._last_pts: int | None = None  # of the last packet
        self._refused = False  # whether the decoder refused the last packet
        self._marred_pts: int | None = None  # of the last frame that is damaged
        self.video = video
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
        told: dict[int, tuple[int, int, int]] = {}
        first = self._entry.number if self._entry else 0
        rate = Fraction(self.video.average_rate or self.video.guessed_rate or DEFAULT_RATE)
        tick = 1 / (rate * Fraction(self.video.time_base))

        def numbered() -> Iterator[NumberedPicture]:
            for number, picture in enumerate(self.pictures(), first):
                # Elementary streams have no timestamps.
                pts = picture.pts if picture.pts is not None else round(number * tick)
                errors, self._errors = self._errors + bool(picture.is_corrupt), 0
                told[number] = pts, picture.duration or 0, errors
                yield NumberedPicture(number, picture)

        for number, picture in progressive(numbered()):
            try:
                pixels = pixels_of(picture, self._bits)
            except (av.FFmpegError, ValueError) as error:
                raise SourceError(
                    f"{self.uri}: the pixels of frame {number} cannot be converted to RGB ({error})"
                ) from error
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
        try:
            pictures = self.video.codec_context.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            self._errors += 1
            self._refused = True
            return
        for picture in pictures:
            if picture.is_corrupt:
                self._marred_pts = picture.pts
            # What comes before the keyframe that decoding began at refers to frames that are not there.
            if self._entry is None or picture.pts is None or picture.pts >= self._entry.pts:
                yield picture


@contextmanager
def open_source(uri: str, bits: int = 8, entry: Cut | None = None) -> Iterator[Source]:
    """Open a video by its URI; it is decoded in the caller's thread alone, so that errors are always the same.

    Args:
        uri: a video file.
        bits: 8 gives uint8 pixels, more gives uint16.
        entry: the keyframe to decode from; None: the video's beginning.

    Raises:
        SourceError: no video stream that can be read.
        UserError: missing, or not to be read by this user.
        OSError: the storage failed.
    """
    if is_folder(uri):
        raise SourceError(f"{uri}: is a folder; name a video file")
    with ExitStack() as stack:
        with _blamed_on_source():
            container, video, _ = stack.enter_context(open_input(uri, listen=False))
        yield Source(container, video, uri, bits, entry)


def survey(uri: str) -> Survey:
    """Read all packets of a video once, and decode little of it.

    Raises:
        SourceError: no video that can be read, encrypted, or no frame can be decoded.
        UserError: missing, or not to be read by this user.
        OSError: the storage failed.
    """
    with open_source(uri) as source:
        first = next(source.pictures(), None)
        if first is None:
            raise SourceError(f"{uri}: holds no video frame that can be decoded")
        aspect = Fraction(source.video.sample_aspect_ratio or 1)
        height, width = first.height, first.width
        if quarter_turns(first) % 2:
            height, width, aspect = width, height, 1 / aspect
    with open_input(uri, listen=False) as (container, video, _):
        counted = _Counted(container, JumpScan(container, video.index))
        scanned = scan(counted, video)
        counted.finish()
        rate = Fraction(video.average_rate or video.guessed_rate or DEFAULT_RATE)
        promised = _promised(container, video, counted, rate)
        time_base = Fraction(video.time_base)
        end = _end(container, video, counted)
    offsets = counted.jumps.offsets
    can_be_cut = not offsets and _can_be_cut(uri, scanned.cuts)  # a time that is there twice cannot be sought
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
        counted.last_pts,
        end,
        tuple(scanned.cuts) if can_be_cut else (),
        offsets,
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


class _Counted:
    """A container whose packets are counted while somebody else reads those of one stream.

    Attributes:
        shown: packets of the stream that stand for a frame.
        hidden: those that an edit list leaves out.
        last_pts: the highest timestamp of the stream.
        last_duration: of its packet; 0 where it is not told.
        end: of all streams, in seconds.
        jumps: told of all packets.
    """

    def __init__(self, container: Any, jumps: JumpScan) -> None:
        self.jumps = jumps
        self.shown = self.hidden = self.last_duration = 0
        self.last_pts: int | None = None
        self.end = Fraction()
        self._container = container
        self._packets: Iterator[Any] = iter(())

    def demux(self, stream: Any) -> Iterator[Any]:
        self._packets = self._read(stream)
        return self._packets

    def finish(self) -> None:
        """Read what the other left."""
        try:
            for _ in self._packets:
                pass
        except av.FFmpegError:
            pass

    def _read(self, stream: Any) -> Iterator[Any]:
        for packet in self._container.demux():
            if not packet.size:
                continue
            self.jumps.add(packet)
            if packet.pts is not None and packet.time_base:
                self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream_index != stream.index:
                continue
            self.hidden += packet.is_discard
            self.shown += not packet.is_discard
            shown = packet.pts is not None and not packet.is_discard
            if shown and (self.last_pts is None or packet.pts > self.last_pts):
                self.last_pts, self.last_duration = packet.pts, packet.duration or 0
            yield packet


def _end(container: Any, video: Any, counted: _Counted) -> int | None:
    """When the last frame is not shown any more, in ticks."""
    last = counted.last_pts
    if last is None:
        return None
    # An edit list may end within the last frame, or show it for long. Some mp4 files tell of too short a track.
    if video.duration is not None and (video.start_time or 0) + video.duration > last:
        return int((video.start_time or 0) + video.duration)
    ends = [last + counted.last_duration] if counted.last_duration else []
    if container.duration:  # of all streams
        ends.append(round(Fraction((container.start_time or 0) + container.duration, av.time_base) / video.time_base))
    return min((end for end in ends if end > last), default=None)


def _promised(container: Any, video: Any, counted: _Counted, rate: Fraction) -> int | None:
    """How many frames the header tells of."""
    if video.frames and "matroska" not in container.format.name:
        end = (counted.last_pts or 0) + counted.last_duration
        return promised_packets(container, video, counted.shown + counted.hidden, end) - counted.hidden
    # Matroska's header has no count, but a duration; of all streams together.
    if "matroska" in container.format.name and container.duration:
        missing = Fraction(container.duration, av.time_base) - counted.end
        if missing > 2 / rate:
            return counted.shown + round(missing * rate)
    return None


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
    with open_source(uri, entry=entry) as source:
        wanted = (picture for picture in source.pictures() if picture.pts is not None and picture.pts >= pts)
        return [(picture.pts, pixels_of(picture, 8).tobytes()) for picture in islice(wanted, _PROBED)]
