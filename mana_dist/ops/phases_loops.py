"""Patch matching and sorting by phase as loops over shifts: plain torch, any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mana_dist.ops.patches import CELL, KEPT, Matches, Search, levels, normalisers


def match(frames: Tensor, search: Search) -> Matches:
    """As :func:`mana_dist.ops.match_patches` defines it."""
    grey, small = levels(frames, search)
    fine = _Level(grey, search.patch)
    height, width = grey.shape[-2:]
    zero = torch.zeros(fine.others.shape, dtype=torch.int64, device=grey.device)
    best = fine.search(zero, zero, search.window, None)
    if small is not None:
        coarse = _Level(small, search.patch)
        nothing = torch.zeros(coarse.others.shape, dtype=torch.int64, device=grey.device)
        _, *offset = coarse.search(nothing, nothing, search.coarse_window, None)
        rows, columns = (
            (torch.arange(size, device=grey.device) // CELL).clamp(max=size // CELL - 1) for size in (height, width)
        )
        down, right = (CELL * of[..., rows[:, None], columns] for of in offset)
        best = fine.search(down, right, search.refine, best)
    score, down, right = best
    y, x = fine.y + down, fine.x + right
    inside_y, inside_x = (y > 0) & (y < height - 1), (x > 0) & (x < width - 1)
    beside = [fine.likeness(down + dy, right + dx) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    offsets = _top(beside[0], beside[1], score).where(inside_y, 0), _top(beside[2], beside[3], score).where(inside_x, 0)
    return Matches(score, y.int(), x.int(), *offsets)


def sort(frames: Tensor, matches: Matches, hood: int, bins: int, top: int) -> Tensor:
    """As :func:`mana_dist.ops.sort_by_phase` defines it."""
    batch, count, _, height, width = frames.shape
    half, middle = hood // 2, count // 2
    around = F.unfold(F.pad(frames.flatten(0, 1), [half] * 4, mode="replicate"), hood).unflatten(0, (batch, count))
    rows = matches.score.shape[2]
    own = around[:, middle].unflatten(-1, (height, width))[:, :, top : top + rows]
    parts = torch.arange(bins, device=frames.device).view(1, -1, 1, 1)
    total = frames.new_zeros(batch, bins * bins, rows, width)
    sums = frames.new_zeros(batch, bins * bins, own.shape[1], rows, width)
    for neighbour in range(count - 1):
        score, y, x, down, right = (tensor[:, neighbour] for tensor in matches)
        index = (y.long() * width + x.long()).flatten(1)[:, None].expand(-1, own.shape[1], -1)
        values = around[:, neighbour + (neighbour >= middle)].gather(2, index).view_as(own) - own
        confidence = ((score - 0.5) / 0.5).clamp(0, 1)
        shares = [(1 - ((0.5 - offset[:, None]) * bins - 0.5 - parts).abs()).clamp(min=0) for offset in (down, right)]
        weights = (shares[0][:, :, None] * shares[1][:, None]).flatten(1, 2) * confidence[:, None]
        total += weights
        sums += weights[:, :, None] * values[:, None]
    averages = (sums / (total[:, :, None] + 0.2)).flatten(1, 2)
    return torch.cat([averages, total], 1).contiguous(memory_format=torch.channels_last)


class _Level:
    """Grey frames (B, T, H, W) and what their patches are compared by."""

    def __init__(self, grey: Tensor, patch: int) -> None:
        self.patch, (self.height, self.width) = patch, grey.shape[-2:]
        middle = grey.shape[1] // 2
        others = [index for index in range(grey.shape[1]) if index != middle]
        padded = F.pad(grey, [patch // 2] * 4, mode="replicate")
        mean, scale = normalisers(grey, patch)
        self.own, self.own_mean, self.own_scale = (tensor[:, middle, None] for tensor in (padded, mean, scale))
        self.others = grey[:, others]
        self.padded, self.mean, self.scale = padded[:, others], mean[:, others], scale[:, others]
        self.y = torch.arange(self.height, device=grey.device)[:, None]
        self.x = torch.arange(self.width, device=grey.device)

    def search(
        self, down: Tensor, right: Tensor, window: int, best: tuple[Tensor, Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best score and its offsets among those around (down, right), and ``best`` where none is better."""
        if best is None:
            best = torch.full_like(self.others, -torch.inf), torch.zeros_like(down), torch.zeros_like(right)
        reach = window // 2
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                score = self.likeness(down + dy, right + dx)
                better = score > best[0]
                best = (
                    score.where(better, best[0]),
                    (down + dy).where(better, best[1]),
                    (right + dx).where(better, best[2]),
                )
        return best

    def likeness(self, down: Tensor, right: Tensor) -> Tensor:
        """The likeness of each pixel's patch to those at its offsets (B, T - 1, H, W); -inf outside the frame."""
        y, x = self.y + down, self.x + right
        inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        y, x = y.clamp(0, self.height - 1), x.clamp(0, self.width - 1)
        line = self.width + self.patch - 1
        flat, total = self.padded.flatten(2), torch.zeros_like(self.others)
        for i in range(self.patch):
            for j in range(self.patch):
                there = flat.gather(2, ((y + i) * line + x + j).flatten(2)).view_as(total)
                total += there * self.own[..., i : i + self.height, j : j + self.width]
        mean, scale = (
            of.flatten(2).gather(2, (y * self.width + x).flatten(2)).view_as(total) for of in (self.mean, self.scale)
        )
        score = (total - KEPT * self.patch**2 * mean * self.own_mean) * scale * self.own_scale
        return torch.where(inside, score, -torch.inf)


def _top(before: Tensor, after: Tensor, middle: Tensor) -> Tensor:
    """Where the parabola through three scores has its top, in [-0.5, 0.5]."""
    return (0.5 * (before - after) / (before + after - 2 * middle).clamp(max=-1e-4)).clamp(-0.5, 0.5)
