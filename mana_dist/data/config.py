"""How samples are made of a clip's frames: every choice that moves a sample."""

from dataclasses import dataclass

from mana_dist.data.degradation import BI, Degradation
from mana_dist.data.manifest import Manifest
from mana_dist.video import READER_VERSION
from mana_dist.video.shots import CUT_DETECTOR

SCALE = 4
MIN_LR_SIDE = 16
"""Least LR height and width, pixels: below it there is nothing to crop from."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How samples are made of the frames of every clip of a dataset.

    Attributes:
        degradation: how LR frames are made.
        frames_per_sample: LR frames per sample (T), odd.
        stride: at most one sample per this many frames.
        patch: side of the square LR patches that each sample is cut into; 0 keeps whole frames.
        detect_cuts: whether shot cuts are looked for; no sample crosses one.
        min_change: a frame of which no block of 8x8 LR pixels changed by this much on average (luma, grey levels)
            repeats the one before, and is left out; 0 keeps every frame.
        min_detail: least detail of a sample's HR centre (see :func:`mana_dist.data.sampling.detail`), grey levels.
    """

    degradation: Degradation = BI
    frames_per_sample: int = 7
    stride: int = 1
    patch: int = 0
    detect_cuts: bool = True
    min_change: float = 0.5
    min_detail: float = 0.25

    def empty_manifest(self) -> Manifest:
        """The manifest of a dataset of such samples that holds none yet."""
        return Manifest(
            reader=READER_VERSION,
            degradation=self.degradation.name,
            degradation_version=self.degradation.version,
            scale=SCALE,
            frames=self.frames_per_sample,
            stride=self.stride,
            patch=self.patch,
            cut_detector=CUT_DETECTOR if self.detect_cuts else "",
            min_change=self.min_change,
            min_detail=self.min_detail,
            samples=0,
            clips=0,
            sources=None,
            shards=(),
            rejected=(),
        )
