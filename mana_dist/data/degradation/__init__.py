"""The degradations of video super-resolution, named and versioned, one module for each.

A new degradation is a new module here that holds a :class:`Degradation`, or a user's file that holds a recipe.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation.bd import BD
from mana_dist.data.degradation.bi import BI
from mana_dist.data.degradation.degradation_kind import Degradation
from mana_dist.data.degradation.real import REAL
from mana_dist.data.resize import imresize
from mana_dist.errors import UserError
from mana_dist.kinds import Table

DEGRADATIONS = Table(Degradation, __name__, __path__, first=(BI.name, BD.name))

__all__ = [
    "BD",
    "BI",
    "DEGRADATIONS",
    "REAL",
    "Degradation",
    "HrFrame",
    "bicubic_upsample",
    "crop_to_multiple",
    "degrade",
    "degrade_clip",
    "find_degradation",
]


class HrFrame(Protocol):
    """An HR frame and its place in its clip."""

    @property
    def number(self) -> int:
        """The frame's number in the clip."""

    @property
    def run(self) -> int:
        """The number of its run: frames of a run follow each other without a gap, and have one size."""

    @property
    def hr(self) -> NDArray[np.uint8]:
        """The pixels: (H, W, 3), RGB, the sides multiples of the scale."""


Whole = TypeVar("Whole", bound=HrFrame)


def find_degradation(name: str) -> Degradation:
    """Return the degradation of that name, or that of the recipe in a YAML file.

    Raises:
        UserError: there is none, or the file holds no recipe; one line that names the file and the key.
    """
    found = DEGRADATIONS[name] if name in DEGRADATIONS else _of_file(name)
    try:
        if found.recipe is not None:
            found.recipe.check_codecs()
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return found


def _of_file(name: str) -> Degradation:
    if not name.lower().endswith((".yaml", ".yml")):
        known = ", ".join(DEGRADATIONS)
        raise UserError(f"--degradation {name}: there are {known}; name one of them or a recipe's file, PATH.yaml")
    from mana_dist.data.degradation.recipe_file import load_recipe  # takes longer than a command's help should

    recipe = load_recipe(name)
    if recipe.name in DEGRADATIONS and DEGRADATIONS[recipe.name].recipe != recipe:
        raise UserError(f"{name}: name: {recipe.name} is another degradation's; take another name")
    return Degradation.of_recipe(recipe)


def degrade_clip(
    frames: Iterable[Whole], degradation: Degradation, clip: str, scale: int = 4
) -> Iterator[tuple[Whole, NDArray[np.uint8]]]:
    """Yield HR frames with their LR frames; lazily, of compressed video some frames behind.

    The LR frames depend on neither who reads them nor what else is read, if ``frames`` has all frames of each of the
    degradation's blocks that has one: blocks begin at multiples of :attr:`Degradation.block`.

    Args:
        frames: the clip's frames or some of them, the numbers rising.
        degradation: the degradation.
        clip: the clip's name, from which a recipe draws.
        scale: HR side over LR side.
    """
    recipe = degradation.recipe
    if recipe is None:
        for frame in frames:
            yield frame, degrade(frame.hr, degradation, scale)
        return
    for _, block in itertools.groupby(frames, lambda frame: (frame.run, frame.number // degradation.block)):
        waiting: deque[Whole] = deque()
        for lr in recipe.run(_noted(block, waiting), clip, scale):
            yield waiting.popleft(), lr


def _noted(frames: Iterator[Whole], waiting: deque[Whole]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for frame in frames:
        waiting.append(frame)
        yield frame.number, frame.hr


def degrade(frames: NDArray[np.uint8], degradation: Degradation, scale: int = 4) -> NDArray[np.uint8]:
    """Make LR frames of HR frames.

    Args:
        frames: uint8 (..., H, W, 3); H and W multiples of ``scale``.
        degradation: the degradation.
        scale: HR side over LR side; BD is defined for 4 alone.

    Returns:
        uint8 (..., H // scale, W // scale, 3).

    Raises:
        ValueError: a side is no multiple of ``scale``, or the degradation is not defined for it.
    """
    height, width = frames.shape[-3:-1]
    if height % scale or width % scale:
        raise ValueError(f"frames of {width}x{height} must be cropped to multiples of {scale} first")
    result = np.empty((*frames.shape[:-3], height // scale, width // scale, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        result[index] = degradation.shrink(frames[index], scale)
    return result


def bicubic_upsample(frames: NDArray[np.uint8], scale: int = 4) -> NDArray[np.uint8]:
    """Upscale by MATLAB's bicubic ``imresize``: uint8 (..., h, w, 3) -> uint8 (..., scale * h, scale * w, 3)."""
    height, width = frames.shape[-3:-1]
    result = np.empty((*frames.shape[:-3], scale * height, scale * width, 3), np.uint8)
    for index in np.ndindex(frames.shape[:-3]):
        result[index] = imresize(frames[index], scale * height, scale * width)
    return result


def crop_to_multiple(frame: NDArray[np.uint8], multiple: int = 4) -> NDArray[np.uint8]:
    """Return a view of (..., H, W, 3) without the bottom rows and right columns beyond a multiple of ``multiple``."""
    height, width = frame.shape[-3:-1]
    return frame[..., : height - height % multiple, : width - width % multiple, :]
