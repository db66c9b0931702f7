"""The type of a degradation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """A way to make LR frames of HR frames.

    Attributes:
        name: its name for ``--degradation`` and in files.
        version: raised whenever its LR values change.
        definition: all that is needed to make the same LR frames, in one line.
        shrink: makes the LR frame of an HR frame, uint8 (H, W, 3), whose sides are multiples of the scale; ValueError
            where it is not defined for the scale.
        lr_folders: names of folders with its LR frames beside the ground truth's, or beside it in each clip; the first
            that is there counts. Layouts of datasets may have other names (:mod:`mana_dist.footage.layouts`).
    """

    name: str
    version: int
    definition: str
    shrink: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
    lr_folders: tuple[str, ...]

    def __str__(self) -> str:
        return self.name
