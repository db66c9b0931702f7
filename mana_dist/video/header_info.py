"""Size, length, rate and codec of a video or of a folder of pictures, from headers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import av

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.video.containers import DEFAULT_RATE, check_not_encrypted, frame_rate, open_input
from mana_dist.video.orientation import shown_size
from mana_dist.video.picture_files import shown_size as picture_size
from mana_dist.video.stream_tags import shown

_FIRST_PACKETS = 32  # within these a decoder gives its first frame


@dataclass(frozen=True)
class HeaderInfo:
    """The contents of a clip's header.

    Attributes:
        width: pixels, as shown (rotation applied).
        height: pixels, as shown.
        frames: counted by the header, or duration times rate; None if it has neither.
        rate: frames per second.
        codec: FFmpeg's name of it; of a folder's pictures their suffix.
    """

    width: int
    height: int
    frames: int | None
    rate: Fraction
    codec: str


def probe_header(uri: str, files: Sequence[str] | None) -> HeaderInfo:
    """Read the header of a video (``files`` None) or of a folder's first picture that can be read.

    Only decoded frames carry the rotation, so one is decoded if that is possible.

    Raises:
        UserError: missing, no video or picture, encrypted, no decoder for it.
        OSError: the storage failed.
    """
    if files is not None:
        return _folder_header(uri, files)
    with open_input(uri) as (container, stream):
        codec, rate = stream.codec_context, frame_rate(stream)
        crop = shown(stream).crop
        width, height = crop.size(codec.width, codec.height)
        first = _first_frame(uri, container.demux(stream))
        if first is not None:
            width, height = shown_size(first, crop)
        if not width or not height:
            raise UserError(f"{uri}: its header has no size, and its first frame cannot be decoded")
        return HeaderInfo(width, height, _header_frames(container, stream), rate, codec.name)


def _first_frame(uri: str, packets: Iterator[Any]) -> Any | None:
    """Return the first frame, if it can be decoded."""
    try:
        for packet in islice(packets, _FIRST_PACKETS):
            check_not_encrypted(packet, uri)
            for frame in packet.decode():
                return frame
    except av.FFmpegError:
        pass
    return None


def _header_frames(container: Any, stream: Any) -> int | None:
    counts = [int(stream.frames)]
    if stream.duration is not None:
        counts.append(round(stream.duration * stream.time_base * frame_rate(stream)))
    elif container.duration is not None:
        counts.append(round(Fraction(container.duration, av.time_base) * frame_rate(stream)))
    # A fragmented mp4 counts the frames of its first fragment alone.
    counted_short = 2 * counts[0] < counts[-1]
    return (counts[-1] if counted_short else counts[0]) or None


def _folder_header(uri: str, files: Sequence[str]) -> HeaderInfo:
    trouble: UserError | None = None
    for file in files:
        picture = storage.join(uri, file)
        try:
            width, height = picture_size(storage.read_bytes(picture), picture)  # EXIF may stand at the end
        except FileNotFoundError:
            trouble = trouble or UserError(f"{picture}: no such file")
        except UserError as error:
            trouble = trouble or error
        else:
            return HeaderInfo(width, height, len(files), DEFAULT_RATE, file.rpartition(".")[2].lower())
    raise trouble or UserError(f"{uri}: a folder without PNG or JPEG frames")
