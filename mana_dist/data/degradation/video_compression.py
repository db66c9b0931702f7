"""The operation that compresses the clip itself, as cameras and web sites do.

A segment's frames go through one encoder and one decoder, of one thread each, so that the same frames give the same
bits; what a codec carries over from frame to frame is carried over.
"""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from mana_dist.data.degradation.draws import Draws, Range
from mana_dist.data.degradation.operations import Drawn, Frame, Operation, Target, check_range, check_some

_LEAST_SIDE = 64  # that every encoder takes
_RATE = 25
_BT601, _LIMITED, _UNTAGGED = 6, 1, 2  # FFmpeg's numbers


@dataclass(frozen=True)
class Codec:
    """A codec as FFmpeg has it.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        decoder: and of the decoder.
        quality: options of the encoder that take the quality; the greater, the worse.
        best: least number that they take.
        worst: greatest.
        options: its other options.
        whole: whether they take whole numbers alone.
    """

    encoder: str
    decoder: str
    quality: tuple[str, ...]
    best: int
    worst: int
    options: Mapping[str, str]
    whole: bool = True


CODECS: Mapping[str, Codec] = {
    "h264": Codec(
        *("libx264", "h264", ("crf",), 0, 51),
        # x264's macroblock tree reads memory that nobody wrote, where the width is no multiple of 128.
        {"preset": "veryfast", "mbtree": "0", "x264-params": "cpu-independent=1"},
        whole=False,
    ),
    "hevc": Codec(
        *("libx265", "hevc", ("crf",), 0, 51),
        {"preset": "ultrafast", "x265-params": "info=0:log-level=none:pools=none:frame-threads=1"},
        whole=False,
    ),
    "mpeg4": Codec("mpeg4", "mpeg4", ("qmin", "qmax"), 1, 31, {"b": "0"}),
    "vp9": Codec(
        *("libvpx-vp9", "vp9", ("crf",), 0, 63),
        {"b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "0"},
    ),
    "av1": Codec("libsvtav1", "libdav1d", ("crf",), 1, 63, {"preset": "10", "svtav1-params": "lp=1"}),
}


@dataclass(frozen=True, kw_only=True)
class VideoCompression(Operation):
    """Encode the clip as video (4:2:0, 8 bits) and decode it again.

    Attributes:
        codecs: range of the quality of each codec to draw from: crf, of mpeg4 the quantiser's step. One is drawn for a
            clip; the quality may drift, from segment to segment.
    """

    codecs: Mapping[str, Range] = field(default_factory=lambda: {"h264": (18.0, 30.0)})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_some("codecs", list(self.codecs))
        for name, between in self.codecs.items():
            if name not in CODECS:
                raise ValueError(f"codecs: there is no {name}; there are {', '.join(CODECS)}")
            check_range(f"codecs.{name}", between, CODECS[name].best, CODECS[name].worst)

    def drawn(self, draws: Draws, number: int) -> Drawn:
        """Return codec and quality of the segment that begins with frame ``number``."""
        name = draws.choice("codec", list(self.codecs))
        quality = draws.value("quality", self.codecs[name], number)
        return {"codec": name, "quality": round(quality) if CODECS[name].whole else round(quality, 2)}

    def run(self, frames: Iterator[tuple[int, Frame]], draws: Draws, target: Target) -> Iterator[tuple[int, Frame]]:
        """Encode and decode the frames; they come as the codec gives them, some frames after it took them."""
        waiting: deque[int] = deque()

        def pictures() -> Iterator[Frame]:
            for number, picture in frames:
                waiting.append(number)
                yield picture

        read = pictures()
        first = next(read, None)
        if first is None:
            return
        drawn = self.drawn(draws, waiting[0] // target.segment * target.segment)
        codec, quality = str(drawn["codec"]), float(drawn["quality"])
        for decoded in compressed(itertools.chain([first], read), first.shape, codec, quality, target.segment):
            yield waiting.popleft(), decoded
        if waiting:
            raise RuntimeError(f"{drawn['codec']} lost {len(waiting)} frames")


def compressed(
    pictures: Iterable[Frame], shape: Sequence[int], name: str, quality: float, segment: int
) -> Iterator[Frame]:
    """Yield ``pictures``, all of one ``shape``, as they look after the codec ``name``."""
    import av

    from mana_dist.video.priority import no_real_time

    codec = CODECS[name]
    height, width = shape[:2]
    encoder: Any = av.CodecContext.create(codec.encoder, "w")
    # Even sides, large enough; what is added at the bottom and on the right is cut off again.
    encoder.height, encoder.width = (max(_LEAST_SIDE, side + side % 2) for side in (height, width))
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, _RATE), Fraction(_RATE)
    encoder.gop_size, encoder.thread_count = segment, 1
    value = f"{round(quality) if codec.whole else quality:g}"
    encoder.options = {**codec.options, **dict.fromkeys(codec.quality, value)}
    decoder: Any = av.CodecContext.create(codec.decoder, "r")
    decoder.thread_count = 1
    os.environ.setdefault("SVT_LOG", "1")  # errors alone: SVT-AV1 writes a page to the console for each encoder
    with no_real_time():
        encoder.open()
    margin = ((0, encoder.height - height), (0, encoder.width - width), (0, 0))
    padded = (np.pad(picture, margin, "edge") for picture in pictures)
    for packet in _packets(encoder, padded):
        for picture in decoder.decode(packet):
            yield _shown(picture, height, width)


def _packets(encoder: Any, pictures: Iterable[Frame]) -> Iterator[Any]:
    """Yield an encoder's packets, and None, which ends the decoder's work."""
    from mana_dist.video.colours import Colours, to_picture

    colours = Colours(_BT601, full_range=False, primaries=_UNTAGGED, transfer=_UNTAGGED)
    for number, pixels in enumerate(pictures):
        picture = to_picture(pixels, "yuv420p", colours)
        picture.pts, picture.time_base = number, encoder.time_base
        yield from encoder.encode(picture)
    yield from encoder.encode(None)
    yield None


def _shown(picture: Any, height: int, width: int) -> Frame:
    from mana_dist.video.colours import pixels_of
    from mana_dist.video.stream_tags import Shown

    # Not every codec's stream says these two, nor where chroma lies.
    picture.colorspace, picture.color_range = _BT601, _LIMITED
    return pixels_of(picture, 8, Shown(chroma="left"))[:height, :width]


def missing_part(name: str) -> str:
    """Return the encoder or the decoder of the codec ``name`` that PyAV was built without; empty: it has both."""
    import av

    for part, mode in ((CODECS[name].encoder, "w"), (CODECS[name].decoder, "r")):
        try:
            av.codec.Codec(part, mode)
        except ValueError:  # PyAV's UnknownCodecError is one
            return part
    return ""
