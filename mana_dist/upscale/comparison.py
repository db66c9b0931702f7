"""The comparison with bicubic interpolation: a video side by side, and a still of where they differ most."""

from dataclasses import dataclass, field

import numpy as np

from mana_dist import pictures
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.model.inference import Frame, Pixels
from mana_dist.upscale.config import Settings
from mana_dist.video.colours import to_8_bits

COMPARE_SETTINGS = Settings(codec="h264", bits=8)
_PANEL = (1080, 1920)  # height and width at most; of larger frames the middle is shown


def comparison_of(destination: str) -> tuple[str, str]:
    """Return the URIs of a result's side-by-side and still."""
    video, still = (f"{destination.rstrip('/')}.compare{suffix}" for suffix in (".mp4", ".png"))
    return video, still


@dataclass
class Comparison:
    """The comparison of a video, frame by frame.

    Attributes:
        difference: difference of the region where the result differs most from bicubic interpolation so far.
    """

    difference: float = -1.0
    _panels: tuple[pictures.Panel, ...] = field(default=())

    def add(self, lr: Pixels, result: Pixels) -> Frame:
        """Compare a source frame with its result.

        Returns:
            (H, W, 3) uint8: bicubic on the left, the result on the right.
        """
        lr, result = to_8_bits(lr), to_8_bits(result)
        scale = result.shape[0] // lr.shape[0]
        bicubic = bicubic_upsample(lr, scale)
        region = pictures.most_different_region(bicubic, result, scale)
        if region.difference > self.difference:
            self.difference = region.difference
            cut = (region.of_lr(lr), region.of(bicubic), region.of(result))
            names = ("source", "bicubic", "MANA")
            self._panels = tuple(pictures.Panel(name, image.copy()) for name, image in zip(names, cut, strict=True))
        return np.concatenate([_middle(bicubic), _middle(result)], axis=1)

    def png(self) -> bytes:
        """Return source | bicubic | MANA of that region as PNG; at least one frame must have been added."""
        return pictures.to_png(pictures.row(self._panels))


def _middle(image: Frame) -> Frame:
    height, width = (min(side, most) for side, most in zip(image.shape, _PANEL, strict=False))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
