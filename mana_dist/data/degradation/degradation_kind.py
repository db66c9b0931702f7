"""The type of a degradation."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation.recipe import Recipe
from mana_dist.errors import UserError
from mana_dist.model.config import SCALES


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
        scales: HR side over LR side for which it is defined.
        recipe: draws another degradation for each clip, perhaps for each frame; None: all frames are treated alike, by
            ``shrink``. Of a frame without a clip, ``shrink`` makes what the recipe draws for the first frame of a clip
            without a name.
    """

    name: str
    version: int
    definition: str
    shrink: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
    lr_folders: tuple[str, ...]
    scales: tuple[int, ...] = SCALES
    recipe: Recipe | None = None

    @staticmethod
    def of_recipe(recipe: Recipe) -> "Degradation":
        """Return the degradation that a recipe describes."""
        return Degradation(
            name=recipe.name,
            version=recipe.version,
            definition=f"recipe {json.dumps(recipe.to_mapping())}",
            shrink=functools.partial(_shrink_alone, recipe),
            lr_folders=(f"{recipe.name}x4",),
            recipe=recipe,
        )

    @property
    def block(self) -> int:
        """The number of neighbouring frames that must be degraded together, from a multiple of it on."""
        return 1 if self.recipe is None else self.recipe.block

    def check_scale(self, scale: int) -> None:
        """Check that it is defined for a scale.

        Raises:
            UserError: it is not.
        """
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise UserError(f"degradation {self.name} is defined for scale {known}, not {scale}; take BI or a recipe")

    def __str__(self) -> str:
        return self.name


def _shrink_alone(recipe: Recipe, frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return next(recipe.run(iter([(0, frame)]), "", scale))
