"""From source to target, frame by frame: memory does not grow with the video's length."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mana_dist import pictures
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.inference import Frame
from mana_dist.upscale.source import Source, TimedFrame
from mana_dist.upscale.target import Target

Upscaler = Callable[[Iterable[Frame]], Iterator[Frame]]


def transcode(source: Source, target: Target, upscale: Upscaler, each: Callable[[Frame, Frame], None]) -> None:
    """Upscale every frame of ``source`` into ``target``, at its time, and pass the audio on.

    Args:
        source: opened.
        target: opened; the caller finishes it.
        upscale: (h, w, 3) uint8 frames -> as many (4h, 4w, 3) frames, in order; may read ahead.
        each: called with every source frame and its result, after that is written.
    """
    waiting: deque[TimedFrame] = deque()

    def frames() -> Iterator[Frame]:
        for item in source.read():
            if isinstance(item, TimedFrame):
                waiting.append(item)
                yield item.pixels
            else:
                target.write_audio(item)

    for result in upscale(frames()):
        frame = waiting.popleft()
        target.write_frame(result, frame)
        each(frame.pixels, result)


@dataclass
class Comparison:
    """Collects the part of the video where the result differs most from bicubic interpolation."""

    _best: pictures.Region | None = None
    _panels: tuple[pictures.Panel, ...] = ()

    def add(self, lr: Frame, result: Frame) -> None:
        """Look at a source frame and its result."""
        bicubic = bicubic_upsample(lr)
        region = pictures.most_different_region(bicubic, result)
        if self._best is None or region.difference > self._best.difference:
            self._best = region
            cut = (region.of_lr(lr), region.of(bicubic), region.of(result))
            names = ("source", "bicubic", "MANA")
            self._panels = tuple(pictures.Panel(name, image.copy()) for name, image in zip(names, cut, strict=True))

    def png(self) -> bytes:
        """Source | bicubic | MANA of that part; at least one frame must have been added."""
        return pictures.to_png(pictures.row(self._panels))
