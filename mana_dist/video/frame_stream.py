"""The stream of a video's frames that all readers use: number, time, and a mark if the frame is damaged.

Readers differ only in what they do with the mark: ingest and evaluation leave damaged frames out, upscaling shows them.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mana_dist.video.colours import rgb_of
from mana_dist.video.containers import frame_rate, open_input
from mana_dist.video.gops import GopDecoder, UnreachableError
from mana_dist.video.keyframes import Cut, packets_from
from mana_dist.video.progressive import NumberedPicture, progressive
from mana_dist.video.stream_tags import Shown, shown

_ALL = range(sys.maxsize)


class NumberedFrame(NamedTuple):
    """A frame and its place in its source.

    Attributes:
        number: place in display order, from 0; frames that are missing count.
        pixels: (H, W, 3), RGB, full range, upright, as :func:`mana_dist.video.colours.pixels_of` makes it; uint8, or
            uint16 from 0 to 65535.
        time: when it is shown, in the stream's units; 0 in a folder.
        duration: how long, in the same; 0 where nothing says so.
        damaged: whether it cannot be trusted: an error of its group of pictures came up before it, or in it.
    """

    number: int
    pixels: NDArray[Any]
    time: int = 0
    duration: int = 0
    damaged: bool = False


@dataclass
class FrameStream:
    """An opened video.

    Attributes:
        uri: the file's.
        decoder: the decoder, with the damage that it has met so far.
        entry: the keyframe that decoding began at; None: the video's beginning.
        has_begun: whether a frame was decoded.
    """

    uri: str
    decoder: GopDecoder
    entry: Cut | None
    has_begun: bool
    _read: Iterator[NumberedPicture]
    _view: Shown

    @property
    def cut_off(self) -> str:
        """Why nothing can be read beyond the last frame; empty where it is the video's, as far as seen."""
        return self.decoder.cut_off

    def pictures(self) -> Iterator[NumberedPicture]:
        """Decode the frames, all with a time.

        Raises:
            UserError: encrypted, or no keyframe.
            OSError: the storage failed.
        """
        stream = self.decoder.stream
        tick = 1 / (frame_rate(stream) * Fraction(stream.time_base))
        number = time = 0
        for frame in self._read:
            # Elementary streams have no timestamps, and not every picture of an MPEG-PS has one.
            if frame.time is None:
                yield frame._replace(time=time + round((frame.number - number) * tick))
            else:
                number, time = frame.number, frame.time
                yield frame

    def frames(
        self, pictures: Iterable[NumberedPicture] | None = None, bits: int = 8, wanted: range = _ALL
    ) -> Iterator[NumberedFrame]:
        """Make frames of pictures; interlaced ones are made progressive.

        Args:
            pictures: those of :meth:`pictures` to take; None: all.
            bits: 8 gives uint8 pixels, more gives uint16.
            wanted: numbers of the frames to give.

        Raises:
            UserError: as there, or pixels that cannot be converted.
            OSError: as there.
        """
        for number, picture, damaged, time, duration in progressive(self.pictures() if pictures is None else pictures):
            if number in wanted:
                pixels = rgb_of(self.uri, number, picture, bits, self._view)
                yield NumberedFrame(number, pixels, time or 0, duration, damaged)


@contextmanager
def open_frames(
    uri: str,
    entry: Cut | None = None,
    *,
    by_packets: bool = False,
    in_turn: bool = False,
    stored_times: bool = False,
) -> Iterator[FrameStream]:
    """Open a video; it is decoded in the caller's thread alone, so that errors are always the same.

    Args:
        uri: a video file.
        entry: the keyframe to decode from; None, or where that cannot be done: the video's beginning.
        by_packets: see :class:`mana_dist.video.gops.GopDecoder`.
        in_turn: see there.
        stored_times: see :func:`mana_dist.video.containers.open_input`.

    Raises:
        UserError: missing, no video stream that can be read, encrypted, or no keyframe.
        OSError: the storage failed.
    """
    with open_input(uri, stored_times=stored_times) as (container, stream):
        view = shown(stream)
        packets = container.demux(stream) if entry is None else packets_from(container, stream, entry.pts)
        first = 0 if entry is None else entry.number
        options = {"by_packets": by_packets, "exact": entry is not None, "in_turn": in_turn}
        decoder = GopDecoder(uri, stream, packets, first, **options)
        read = decoder.read()
        begun: list[NumberedPicture] | None = None
        with suppress(UnreachableError):
            begun = list(islice(read, 1))
        if begun is not None:
            yield FrameStream(uri, decoder, entry, bool(begun), chain(begun, read), view)
            return
    with open_frames(uri, by_packets=by_packets, in_turn=in_turn, stored_times=stored_times) as video:
        yield video
