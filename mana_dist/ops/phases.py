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
from mana_dist.ops.patches import CELL, Matches, Region, Search

_DEFAULT = Search()


@torch.no_grad()
def match_patches(frames: Tensor, search: Search = _DEFAULT, region: Region | None = None) -> Matches:
    """Find each pixel of the centre frame in every other frame.

    Patches are of the mean of the three channels, less nine tenths of their own mean, divided by their length; the
    likeness of two is their dot product. Beyond a frame's borders its border pixels are repeated, but matches lie
    inside. The best match is the likest of the window around the pixel's own place (of equals the first in row-major
    order), unless the coarse search found a likelier one: at a quarter of the size (means of 4x4) the likest of its
    window, for all pixels of the cell; then at full size around four times its offset.

    Args:
        frames: (B, T, 3, H, W), floating point, RGB in [0, 1]; T odd.
        search: what is compared and where.
        region: the pixels to match; None: all.

    Returns:
        The matches of the region's pixels; the same as those of the whole frame there.
    """
    region = region or Region(0, frames.shape[-2], 0, frames.shape[-1])
    return _implementation(frames).match(frames.float(), search, region)


@torch.no_grad()
def sort_by_phase(
    frames: Tensor, matches: Matches, hood: int = 5, bins: int = 2, region: Region | None = None
) -> Tensor:
    """Average the matched neighbourhoods of all other frames by the part of the pixel that they sample.

    A neighbour frame's pixel whose true match lies (down, right) beside it was sampled at (-down, -right) from the
    centre frame's pixel. Its neighbourhood, less the centre's, is shared out bilinearly over bins x bins parts of the
    pixel, weighted by its confidence (0 at a score of one half or less, 1 at a score of 1), and averaged there.

    Args:
        frames: what was matched, (B, T, 3, H, W).
        matches: of the region's pixels.
        hood: side of the neighbourhoods, odd, at most 7.
        bins: parts of a pixel along each axis, at most 4.
        region: what was matched; None: all.

    Returns:
        (B, bins * bins * (3 * hood * hood + 1), H, W) of the region, float32, channels innermost in memory: the parts'
        averages (by part, channel, row and column), each pulled to zero by a weight of 0.2; then the parts' weights.
    """
    if not (hood % 2 == 1 and 0 < hood <= 7 and 0 < bins <= 4):
        raise ValueError(f"hood must be 1, 3, 5 or 7 and bins 1 to 4, got {hood} and {bins}")
    region = region or Region(0, frames.shape[-2], 0, frames.shape[-1])
    return _implementation(frames).sort(frames.float(), matches, hood, bins, region)


def phase_channels(hood: int, bins: int) -> int:
    """Return the number of channels that :func:`sort_by_phase` gives."""
    return bins * bins * (3 * hood * hood + 1)


def phases(frames: Tensor, search: Search, hood: int, bins: int, region: Region) -> Tensor:
    """Return :func:`sort_by_phase` of :func:`match_patches`, as one operator of torch."""
    settings = [search.patch, search.window, search.coarse_window, search.refine]
    found: Tensor = torch.ops.mana.phases(frames.detach(), settings, hood, bins, list(region))
    return found


def _phases(frames: Tensor, search: list[int], hood: int, bins: int, region: list[int]) -> Tensor:
    patch, window, coarse_window, refine = search
    sides = Search(patch=patch, window=window, coarse_window=coarse_window, refine=refine)
    part = Region(*region)
    return sort_by_phase(frames, match_patches(frames, sides, part), hood, bins, part)


def _fake_phases(frames: Tensor, search: list[int], hood: int, bins: int, region: list[int]) -> Tensor:
    top, bottom, left, right = region
    size = len(frames), bottom - top, right - left, phase_channels(hood, bins)
    return frames.new_empty(size, dtype=torch.float32).movedim(-1, 1)


torch.library.define("mana::phases", torch.library.infer_schema(_phases, mutates_args=()))
torch.library.impl("mana::phases", "CompositeExplicitAutograd", _phases)
torch.library.register_fake("mana::phases", _fake_phases)


@register_flop_formula(torch.ops.mana.phases)
def _flops(
    frames: torch.Size, search: list[int], hood: int, bins: int, region: list[int], out_shape: torch.Size, **_: Any
) -> int:
    """Count sums of products of patches, row by row and then column by column; and the sorting."""
    patch, window, coarse_window, refine = search
    batch, channels, *size = out_shape
    candidates = window**2 + refine**2 + (coarse_window / CELL) ** 2
    pixel = (frames[1] - 1) * (candidates * 3 * patch + 8 * patch**2 + 2 * channels)
    return int(batch * math.prod(size) * pixel)


def _implementation(frames: Tensor) -> ModuleType:
    return phases_cpu if frames.device.type == "cpu" and phases_cpu.available() else phases_loops
