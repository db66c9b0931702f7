"""Sub-pixel motion compensation by patches: neighbour frames' pixels, sorted by where they fall within a pixel.

A neighbour frame shows the same thing sampled at other places. Where exactly, a parabola through the likenesses around
the best match says to a fraction of a pixel; without it, aligned frames say no more than the centre frame does. Nothing
here is learned, so nothing here has a gradient.
"""

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mana_dist.ops import phases_cpu, phases_loops
from mana_dist.ops.patches import CELL, Matches, Search

_DEFAULT = Search()


def match_patches(frames: Tensor, search: Search = _DEFAULT) -> Matches:
    """Find each pixel of the centre frame in every other frame.

    Patches are of the mean of the three channels, less nine tenths of their own mean, divided by their length; the
    likeness of two is their dot product. Beyond a frame's borders its border pixels are repeated, but matches lie
    inside. The best match is the likest of the window around the pixel's own place (of equals the first in row-major
    order), unless the coarse search found a likelier one: at a quarter of the size (means of 4x4) the likest of its
    window, for all pixels of the cell; then at full size around four times its offset.

    Args:
        frames: (B, T, 3, H, W), floating point, RGB in [0, 1]; T odd.
        search: what is compared and where.
    """
    sides = [search.patch, search.window, search.coarse_window, search.refine]
    return Matches(*torch.ops.mana.match_patches(frames.detach(), sides))


def sort_by_phase(frames: Tensor, matches: Matches, hood: int = 5, bins: int = 2, top: int = 0) -> Tensor:
    """Average the matched neighbourhoods of all other frames by the part of the pixel that they sample.

    A neighbour frame's pixel whose true match lies (down, right) beside it was sampled at (-down, -right) from the
    centre frame's pixel. Its neighbourhood, less the centre's, is shared out bilinearly over bins x bins parts of the
    pixel, weighted by its confidence (0 at a score of one half or less, 1 at a score of 1), and averaged there.

    Args:
        frames: what was matched, (B, T, 3, H, W).
        matches: of the frames, or of some of their rows.
        hood: side of the neighbourhoods, odd, at most 7.
        bins: parts of a pixel along each axis, at most 4.
        top: the first of the matches' rows.

    Returns:
        (B, bins * bins * (3 * hood * hood + 1), rows, W), float32, channels innermost in memory: the parts' averages
        (by part, channel, row and column), each pulled to zero by a weight of 0.2; then the parts' weights.
    """
    if not (hood % 2 == 1 and 0 < hood <= 7 and 0 < bins <= 4):
        raise ValueError(f"hood must be 1, 3, 5 or 7 and bins 1 to 4, got {hood} and {bins}")
    found: Tensor = torch.ops.mana.sort_by_phase(frames.detach(), *matches, hood, bins, top)
    return found


def phase_channels(hood: int, bins: int) -> int:
    """Return the number of channels that :func:`sort_by_phase` gives."""
    return bins * bins * (3 * hood * hood + 1)


_Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _match(frames: Tensor, search: list[int]) -> _Five:
    return _implementation(frames).match(frames.float(), Search.of(search))


def _match_fake(frames: Tensor, search: list[int]) -> _Five:
    def empty(dtype: torch.dtype) -> Tensor:
        return frames.new_empty((len(frames), frames.shape[1] - 1, *frames.shape[-2:]), dtype=dtype)

    floats, places = torch.float32, torch.int32
    return empty(floats), empty(places), empty(places), empty(floats), empty(floats)


def _sort(
    frames: Tensor, score: Tensor, y: Tensor, x: Tensor, down: Tensor, right: Tensor, hood: int, bins: int, top: int
) -> Tensor:
    matches = Matches(score, y, x, down, right)
    return _implementation(frames).sort(frames.float(), matches, hood, bins, top)


def _sort_fake(
    frames: Tensor, score: Tensor, y: Tensor, x: Tensor, down: Tensor, right: Tensor, hood: int, bins: int, top: int
) -> Tensor:
    size = len(frames), *score.shape[-2:], phase_channels(hood, bins)
    return frames.new_empty(size, dtype=torch.float32).movedim(-1, 1)


for _name, _operator, _shapes in (("match_patches", _match, _match_fake), ("sort_by_phase", _sort, _sort_fake)):
    torch.library.define(f"mana::{_name}", torch.library.infer_schema(_operator, mutates_args=()))
    torch.library.impl(f"mana::{_name}", "CompositeExplicitAutograd", _operator)
    torch.library.register_fake(f"mana::{_name}", _shapes)


@register_flop_formula(torch.ops.mana.match_patches)
def _match_flops(frames: torch.Size, search: list[int], **_: Any) -> int:
    """Count sums of products of patches, row by row and then column by column."""
    sides, (batch, count, _channels, height, width) = Search.of(search), frames
    candidates = sides.window**2 + sides.refine**2 + (sides.coarse_window / CELL) ** 2
    return int(batch * (count - 1) * height * width * (candidates * 3 * sides.patch + 8 * sides.patch**2))


@register_flop_formula(torch.ops.mana.sort_by_phase)
def _sort_flops(frames: torch.Size, *_: Any, out_shape: torch.Size, **_named: Any) -> int:
    """Count a multiplication and an addition for each value of each neighbour."""
    return int(2 * (frames[1] - 1) * math.prod(out_shape))


def _implementation(frames: Tensor) -> ModuleType:
    return phases_cpu if frames.device.type == "cpu" and phases_cpu.available() else phases_loops
