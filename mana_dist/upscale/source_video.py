"""Survey of a video before it is upscaled: its content, and where it can be cut."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

import av

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.upscale import segments
from mana_dist.upscale.config import Settings
from mana_dist.upscale.jumps import Clock, JumpScan
from mana_dist.upscale.packets import Packets
from mana_dist.upscale.segments import Segment
from mana_dist.video.colours import Colours, colours_of, depth, rgb_of
from mana_dist.video.containers import frame_rate, open_input
from mana_dist.video.frame_folders import is_folder
from mana_dist.video.frame_stream import open_frames
from mana_dist.video.keyframes import Cut, scan
from mana_dist.video.orientation import quarter_turns, shown_size
from mana_dist.video.shots import CUT_MARGIN
from mana_dist.video.stream_tags import AS_DECODED, shown

_STILL = Clock()
_ORDERED = 24  # frames whose order is looked at
_PROBED = 8  # frames after a keyframe that are compared with those of reading on from the keyframe before


@dataclass(frozen=True)
class Survey:
    """The properties of a video, from all its packets and its first frame.

    Attributes:
        uri: the file's.
        bytes: its size, if the storage has it; with ``modified`` it detects another video under the same name.
        modified: time of its last change, seconds since the epoch.
        width: pixels of a frame, upright.
        height: pixels of a frame, upright.
        bits: bits of a sample.
        colours: colours of the first frame.
        pixel_aspect: width over height of one pixel, upright.
        time_base: seconds per tick of the frames' timestamps.
        rate: frames per second, on average.
        frames: how many there are, by the packets.
        promised: how many there are by the header; None if it has no number.
        last_pts: the highest timestamp; None where there is none.
        end: when the last frame is not shown any more, by the header; None if it has no end.
        cuts: keyframes at which decoding can begin; empty: it must begin at the video's beginning.
        clock: the offsets of the times of all streams.
        delay: ticks to add to the frames' times beside, where FFmpeg guessed them.
        in_turn: whether the packets' times, in their order, are those of the frames in the order of showing.
        pictures: names of the pictures, where the source is a folder of them.
        is_range: whether this is a part of the source's frames, shown from 0 on.
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
    pictures: tuple[str, ...] = ()
    is_range: bool = False


class SourceError(UserError):
    """Error: a video cannot be upscaled, on whatever machine."""


def check_size(found: Survey, settings: Settings, scale: int) -> None:
    """Check that the frames are, ``scale`` times as large, large enough for the codec, and more than a pixel.

    Raises:
        SourceError: they are not.
    """
    least = settings.traits.least_side
    height, width = scale * found.height, scale * found.width
    if found.height == found.width == 1:
        raise SourceError(f"{found.uri}: its frames are of one pixel; there is nothing to upscale in them")
    if min(height, width) < least:
        raise SourceError(
            f"{found.uri}: becomes {width}x{height}, and {settings.codec} takes frames from {least}x{least} on; use "
            "--codec h264"
        )


@contextmanager
def blamed_on_source() -> Iterator[None]:
    """Turn errors of the video itself into a :class:`SourceError`; its storage's errors stay what they are."""
    try:
        yield
    except UserError as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, av.FFmpegError):
            raise  # missing here, not to be read by this user, no such storage: elsewhere it may be
        raise SourceError(str(error)) from error


@blamed_on_source()
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
    if is_folder(uri):
        raise UserError(f"{uri}: is a folder; name a video file")
    with open_frames(uri, stored_times=True) as source:
        found = next(source.pictures(), None)
        if found is None:
            raise UserError(f"{uri}: holds no video frame that can be decoded")
        first, has_times = found.picture, found.picture.pts is not None
        stream = source.decoder.stream
        view = shown(stream)
        reorders = bool(stream.codec_context.has_b_frames)
        rgb_of(uri, 0, first, 8, view)  # what cannot be converted is refused before anything is done
        width, height = shown_size(first, view.crop)
        aspect = 1 / view.pixel_aspect if quarter_turns(first) % 2 else view.pixel_aspect
    with open_input(uri) as (container, video):
        jumps = JumpScan(container, video, keep_gaps=keep_gaps)
        counted = Packets(container, video, jumps, guessed=not has_times)
        packets = counted.read()
        scanned = scan(packets)
        deque(packets, maxlen=0)  # what the scan left
        rate = frame_rate(video)
        promised = counted.promised(rate)
        time_base = Fraction(video.time_base)
        doubtful = reorders and (counted.ascending or not has_times)
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
    """Return the segments of a video.

    Args:
        survey: survey of the video.
        frames: T, of the network's window.
        length: least number of frames in a segment.
    """
    return segments.plan(survey.cuts, survey.frames, length, context(frames))


def context(frames: int) -> int:
    """Return the number of frames around a segment on which its windows of T = ``frames`` and shot cuts may depend."""
    # Windows at a shot's end look up to T - 1 frames back into it. Whether a frame begins a shot depends on the
    # pictures up to CUT_MARGIN away, and the one before these. One more is for deinterlacing.
    return frames + CUT_MARGIN + 3


def _shown_as_stamped(uri: str) -> bool:
    """Return whether the first frames come out of the decoder in the order of their times."""
    with open_frames(uri) as source:
        times = [frame.picture.pts for frame in islice(source.pictures(), _ORDERED)]
    return None not in times and all(one < later for one, later in pairwise(times))


def _can_be_cut(uri: str, cuts: list[Cut]) -> bool:
    """Return whether decoding from three keyframes gives what reading on from the ones before gives."""
    if len(cuts) < 2:
        return bool(cuts)
    for number in sorted({1, len(cuts) // 2, len(cuts) - 1}):
        before = cuts[number - 1] if number > 1 else None
        through, anew = (_first_frames(uri, entry, cuts[number].pts) for entry in (before, cuts[number]))
        if not anew or through != anew:
            return False
    return True


def _first_frames(uri: str, entry: Cut | None, pts: int) -> list[tuple[int, bytes]]:
    with open_frames(uri, entry) as source:
        if source.entry != entry:
            return []
        wanted = (frame for frame in source.pictures() if frame.picture.pts is not None and frame.picture.pts >= pts)
        return [
            (frame.picture.pts, rgb_of(uri, frame.number, frame.picture, 8, AS_DECODED).tobytes())
            for frame in islice(wanted, _PROBED)
        ]
