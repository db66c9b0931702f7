"""The settings of samples: every choice that changes a sample made of a clip's frames."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation import BI, Degradation
from mana_dist.data.manifest import SETTINGS, Manifest
from mana_dist.video import READER_VERSION
from mana_dist.video.shots import CUT_DETECTOR


def _not_made(_: NDArray[np.uint8], __: int) -> NDArray[np.uint8]:
    raise ValueError("given LR frames cannot be made")


GIVEN = Degradation(
    name="given", version=1, definition="LR frames as they were given with HR", shrink=_not_made, lr_folders=()
)
"""The degradation of pairs; in no table, since it makes nothing."""
MIN_LR_SIDE = 16
"""Smallest LR height and width, pixels: smaller frames leave nothing to crop from."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The settings by which a dataset's samples are made of frames.

    Attributes:
        degradation: the degradation that makes LR frames.
        scale: HR side over LR side.
        frames_per_sample: LR frames per sample (T), odd.
        stride: at most one sample per this many frames.
        patch: side of the square LR patches that each sample is cut into; 0 keeps whole frames.
        detect_cuts: whether to detect shot cuts; no sample crosses one.
        min_change: a frame in which no block of 8x8 LR pixels changed by this much on average (luma, grey levels) is
            left out as a repetition of the one before; 0 keeps every frame. Of frames that a recipe degrades, repeats,
            shot cuts and motion are looked for before it does.
        min_detail: smallest detail of a sample's HR centre (:func:`mana_dist.data.frame_quality.detail`), grey levels.
        min_motion: smallest ``flow`` of a sample, LR pixels per frame.
        max_motion: largest; None for any.
        drop_near_duplicates: whether to leave out clips whose frames are in another clip.
        max_blockiness: greatest mean blockiness of a clip's frames (:mod:`mana_dist.data.frame_quality`); None for any.
        max_blur: greatest mean blur; None for any.

    Raises:
        UserError: the degradation is not defined for the scale.
    """

    degradation: Degradation = BI
    scale: int = 4
    frames_per_sample: int = 7
    stride: int = 1
    patch: int = 0
    detect_cuts: bool = True
    min_change: float = 0.5
    min_detail: float = 0.25
    min_motion: float = 0.0
    max_motion: float | None = None
    drop_near_duplicates: bool = False
    max_blockiness: float | None = None
    max_blur: float | None = None

    def __post_init__(self) -> None:
        self.degradation.check_scale(self.scale)

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The degradation's recipe as plain values; None where all frames are treated alike."""
        return None if self.degradation.recipe is None else self.degradation.recipe.to_mapping()

    def empty_manifest(self) -> Manifest:
        """Return the manifest of an empty dataset with these settings."""
        same = {name: value for name, value in vars(self).items() if name in SETTINGS and name != "degradation"}
        return Manifest(
            reader=READER_VERSION,
            degradation=self.degradation.name,
            degradation_version=self.degradation.version,
            recipe=self.recipe,
            frames=self.frames_per_sample,
            cut_detector=CUT_DETECTOR if self.detect_cuts else "",
            **same,
            samples=0,
            clips=0,
            sources=None,
            shards=(),
            rejected=(),
        )
