"""Patch matching and sorting by phase as loops over shifts: plain torch, any device.

Exported networks hold these operations too (:mod:`mana_dist.ops.plain`), so sizes may be symbols, and no step here is
taken for each of the many positions that a pixel is compared with, but for a row of them.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mana_dist.ops.patches import CELL, KEPT, Matches, Search, levels, normalisers


def match(frames: Tensor, search: Search) -> Matches:
    """As :func:`mana_dist.ops.match_patches` defines it."""
    fine, coarse = _levels(frames, search)
    best = _best(fine.rows(search.window))
    if coarse is not None:
        offset = _of_pixels(_best(coarse.rows(search.coarse_window)), fine)
        best = _best(fine.rows_around(CELL * offset[1], CELL * offset[2], search.refine), best)
    score, down, right = best
    above, beside, below = (likeness for *_, likeness in fine.rows_around(down, right, 3))
    y, x = fine.y + down, fine.x + right
    inside_y, inside_x = (y > 0) & (y < fine.height - 1), (x > 0) & (x < fine.width - 1)
    return Matches(
        score,
        y.int(),
        x.int(),
        _top(above[:, :, 1], below[:, :, 1], score).where(inside_y, 0),
        _top(beside[:, :, 0], beside[:, :, 2], score).where(inside_x, 0),
    )


def margin(frames: Tensor, search: Search) -> Tensor:
    """By how much the likest position beats the next one, in the coarse or in the fine search; (B, T - 1, H, W)."""
    fine, coarse = _levels(frames, search)
    rows = [*fine.rows(search.window)]
    if coarse is None:
        return _lead(rows)
    there = [*coarse.rows(search.coarse_window)]
    offset = _of_pixels(_best(iter(there)), fine)
    rows += fine.rows_around(CELL * offset[1], CELL * offset[2], search.refine)
    return torch.minimum(_lead(rows), _of_pixels((_lead(there),), fine)[0])


def sort(frames: Tensor, matches: Matches, hood: int, bins: int, top: int) -> Tensor:
    """As :func:`mana_dist.ops.sort_by_phase` defines it."""
    batch, count, _, height, width = frames.shape
    half, middle = hood // 2, count // 2
    rows = matches.score.shape[2]

    def around(number: int) -> Tensor:
        return F.unfold(F.pad(frames[:, number], [half] * 4, mode="replicate"), hood)

    own = around(middle).unflatten(-1, (height, width))[:, :, top : top + rows]
    parts = torch.arange(bins, device=frames.device).view(1, -1, 1, 1)
    total = frames.new_zeros(batch, bins * bins, rows, width)
    sums = frames.new_zeros(batch, bins * bins, own.shape[1], rows, width)
    for neighbour in range(count - 1):
        score, y, x, down, right = (tensor[:, neighbour] for tensor in matches)
        index = (y.long() * width + x.long()).flatten(1)[:, None].expand(-1, own.shape[1], -1)
        values = around(neighbour + (neighbour >= middle)).gather(2, index).view_as(own) - own
        confidence = ((score - 0.5) / 0.5).clamp(0, 1)
        shares = [(1 - ((0.5 - offset[:, None]) * bins - 0.5 - parts).abs()).clamp(min=0) for offset in (down, right)]
        weights = (shares[0][:, :, None] * shares[1][:, None]).flatten(1, 2) * confidence[:, None]
        total += weights
        sums += weights[:, :, None] * values[:, None]
    averages = (sums / (total[:, :, None] + 0.2)).flatten(1, 2)
    return torch.cat([averages, total], 1).contiguous(memory_format=torch.channels_last)


_Best = tuple[Tensor, Tensor, Tensor]
_Row = tuple[Tensor, Tensor, Tensor]


class _Level:
    """Grey frames (B, T, H, W) and what their patches are compared by."""

    def __init__(self, grey: Tensor, patch: int) -> None:
        self.patch, (self.height, self.width) = patch, grey.shape[-2:]
        middle = grey.shape[1] // 2
        others = [index for index in range(grey.shape[1]) if index != middle]
        padded = F.pad(grey, [patch // 2] * 4, mode="replicate")
        mean, scale = normalisers(grey, patch)
        self.own, self.own_mean, self.own_scale = (tensor[:, middle, None, None] for tensor in (padded, mean, scale))
        self.padded, self.mean, self.scale = (tensor[:, others] for tensor in (padded, mean, scale))
        self.y = torch.arange(self.height, device=grey.device)[:, None]
        self.x = torch.arange(self.width, device=grey.device)

    def rows(self, window: int) -> Iterator[_Row]:
        """As :meth:`rows_around` each pixel's own place, without fetching."""
        steps = torch.arange(-(window // 2), window // 2 + 1, device=self.x.device)
        zero = torch.zeros_like(self.mean, dtype=torch.int64)

        def shifted(tensor: Tensor) -> Tensor:
            """Each column's neighbours within the window: (B, T - 1, window, ..., W); zeros beyond the borders."""
            padded = F.pad(tensor, [window // 2] * 4)
            return torch.stack([padded[..., x : x + tensor.shape[-1]] for x in range(window)], 2)

        padded, mean, scale = (shifted(tensor) for tensor in (self.padded, self.mean, self.scale))
        inside_x = (self.x + steps[:, None] >= 0) & (self.x + steps[:, None] < self.width)
        for row in range(window):
            dy = row - window // 2
            products = (padded[..., row : row + self.own.shape[-2], :] * self.own).flatten(0, 2)
            sums = F.avg_pool2d(F.avg_pool2d(products, (self.patch, 1), stride=1), (1, self.patch), stride=1)
            inside = ((self.y + dy >= 0) & (self.y + dy < self.height)) & inside_x[:, None]
            here = (slice(None), slice(None), slice(None), slice(row, row + self.height))
            likeness = self._likeness(self.patch**2 * sums.view_as(scale[here]), mean[here], scale[here], inside)
            yield zero + dy, zero[:, :, None] + steps[:, None, None], likeness

    def rows_around(self, down: Tensor, right: Tensor, side: int) -> Iterator[_Row]:
        """The likeness of each pixel's patch to those around its offset, (B, T - 1, H, W) each, row by row.

        Yields:
            the row's offsets down (B, T - 1, H, W), its positions' offsets to the right and their likeness
            (B, T - 1, side, H, W); -inf outside the frame.
        """
        reach, half = side // 2, self.patch // 2

        def positions(count: int) -> Tensor:
            return torch.arange(count, device=self.x.device)[:, None, None] - count // 2

        right = right[:, :, None] + positions(side)
        x = self.x + right
        columns = (x[:, :, reach, None] + half + positions(side + 2 * half)).clamp(0, self.padded.shape[-1] - 1)
        own = F.unfold(self.own[:, 0], self.patch).unflatten(1, (self.patch, self.patch))
        own = own.unflatten(-1, (self.height, self.width))[:, None, :, None]  # (B, 1, patch, 1, patch, H, W)
        within = torch.arange(side, device=self.x.device)[:, None] + torch.arange(self.patch, device=self.x.device)
        lines = [
            _fetch(self.padded, (self.y + down[:, :, None] + step + half).clamp(0, self.padded.shape[-2] - 1), columns)
            for step in range(-reach - half, reach + half + 1)
        ]
        for row in range(side):
            y = self.y + down[:, :, None] + row - reach
            inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
            at = y.clamp(0, self.height - 1), x.clamp(0, self.width - 1)
            mean, scale = (_fetch(of, *at) for of in (self.mean, self.scale))
            total = torch.zeros_like(mean)
            for i in range(self.patch):
                total = total + (lines[row + i][:, :, within] * own[:, :, i]).sum(3)
            yield down + row - reach, right, self._likeness(total, mean, scale, inside)

    def _likeness(self, total: Tensor, mean: Tensor, scale: Tensor, inside: Tensor) -> Tensor:
        """The likeness of patches whose dot product with a pixel's own is ``total``."""
        score = (total - KEPT * self.patch**2 * mean * self.own_mean) * scale * self.own_scale
        return torch.where(inside, score, -torch.inf)


def _levels(frames: Tensor, search: Search) -> tuple[_Level, _Level | None]:
    grey, small = levels(frames, search)
    return _Level(grey, search.patch), None if small is None else _Level(small, search.patch)


def _of_pixels(found: tuple[Tensor, ...], fine: _Level) -> list[Tensor]:
    """What was found for cells, for each pixel of them."""
    rows = (fine.y // CELL).clamp(max=fine.height // CELL - 1)
    columns = (fine.x // CELL).clamp(max=fine.width // CELL - 1)
    return [of[..., rows, columns] for of in found]


def _lead(rows: list[_Row]) -> Tensor:
    """By how much the best likeness beats that of the best other position."""
    score, down, right = _best(iter(rows))
    others = [
        likeness.masked_fill((y[:, :, None] == down[:, :, None]) & (x == right[:, :, None]), -torch.inf).amax(2)
        for y, x, likeness in rows
    ]
    return score - torch.stack(others).amax(0)


def _fetch(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """What images (B, T, h, w) show at positions (B, T, N, H, W)."""
    places = y * images.shape[-1] + x
    return images.flatten(2).gather(2, places.flatten(2)).view_as(places)


def _best(rows: Iterator[_Row], best: _Best | None = None) -> _Best:
    """The best likeness and its offsets, the first of equal ones, and ``best`` where none is better."""
    for down, right, likenesses in rows:
        score, place = likenesses.max(2)
        if best is None:
            best = torch.full_like(score, -torch.inf), torch.zeros_like(place), torch.zeros_like(place)
        better = score > best[0]
        there = right.expand_as(likenesses).gather(2, place[:, :, None])[:, :, 0]
        best = score.where(better, best[0]), down.where(better, best[1]), there.where(better, best[2])
    assert best is not None
    return best


def _top(before: Tensor, after: Tensor, middle: Tensor) -> Tensor:
    """Where the parabola through three scores has its top, in [-0.5, 0.5]."""
    return (0.5 * (before - after) / (before + after - 2 * middle).clamp(max=-1e-4)).clamp(-0.5, 0.5)
