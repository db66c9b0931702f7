"""One-hot attention inside a spatial window (paper section 3.2, equations 1 and 2)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def one_hot_attention(query: Tensor, key: Tensor, value: Tensor, window: int = 9) -> Tensor:
    """Attend, per pixel and per frame, to the single best match inside a window.

    For the pixel p of each frame t, with j over the positions of the ``window`` x ``window`` square centred at p::

        s = max_j <query[p], key[t, j]>,  d = argmax_j <query[p], key[t, j]>      (equation 1)
        out[t, p] = s * value[t, d]                                               (equation 2)

    Positions outside the frame never win; of equal scores the first in row-major window order wins; a NaN score wins
    over every number, as in ``torch.max``, so that a broken input shows in the output. The winning position is a
    constant for the gradient, which flows through the score and the value.

    Memory beyond inputs and output is O(B T H W): a loop over the window's shifts keeps a running maximum and never
    copies windows of ``key`` or ``value``.

    Args:
        query: (B, C, H, W), floating point.
        key: (B, T, C, H, W), dtype and device of ``query``.
        value: (B, T, C, H, W), dtype and device of ``query``.
        window: side of the search window, odd.

    Returns:
        (B, T, C, H, W), dtype of ``query``.

    Raises:
        ValueError: shapes do not match, or ``window`` is even or not positive.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and positive, got {window}")
    if query.dim() != 4 or key.dim() != 5:
        raise ValueError(f"query must be (B, C, H, W), key (B, T, C, H, W); got {query.shape} and {key.shape}")
    if key.shape != value.shape or key.shape[:1] + key.shape[2:] != query.shape:
        raise ValueError(f"shapes do not match: query {query.shape}, key {key.shape}, value {value.shape}")
    output: Tensor = _OneHotAttention.apply(query, key, value, window)
    return output


class _OneHotAttention(torch.autograd.Function):
    """Saves the winning index and score only; the windows are never materialised."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
        score, index = _best_match(query, key, window)
        ctx.save_for_backward(query, key, value, score, index)
        return score.unsqueeze(2) * _gather(value, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        query, key, value, score, index = ctx.saved_tensors
        grad_query = grad_key = grad_value = None
        if ctx.needs_input_grad[2]:
            grad_value = _scatter(score.unsqueeze(2) * grad_output, index)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            grad_score = (grad_output * _gather(value, index)).sum(2, keepdim=True)
            if ctx.needs_input_grad[0]:
                grad_query = (grad_score * _gather(key, index)).sum(1)
            if ctx.needs_input_grad[1]:
                grad_key = _scatter(grad_score * query.unsqueeze(1), index)
        return grad_query, grad_key, grad_value, None


def _best_match(query: Tensor, key: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The best score and its flat position y * W + x in the frame, both (B, T, H, W)."""
    batch, frames, _, height, width = key.shape
    best = query.new_full((batch, frames, height, width), -torch.inf)
    index = torch.zeros((batch, frames, height, width), dtype=torch.int64, device=query.device)
    position = torch.arange(height * width, device=query.device).view(height, width)
    seen = torch.zeros((height, width), dtype=torch.bool, device=query.device)
    reach = window // 2
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        rows, key_rows = _overlap(dy, height)
        for dx in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            columns, key_columns = _overlap(dx, width)
            # A product and a sum: einsum turns this into a batch of tiny matrix products, five times slower on CPU.
            score = (query[:, None, :, rows, columns] * key[:, :, :, key_rows, key_columns]).sum(2)
            running = best[:, :, rows, columns]
            # A pixel's first position inside the frame is taken whatever its score, -inf included.
            wins = (score > running) | ~seen[rows, columns] | (score.isnan() & ~running.isnan())
            best[:, :, rows, columns] = torch.where(wins, score, running)
            index[:, :, rows, columns] = torch.where(wins, position[key_rows, key_columns], index[:, :, rows, columns])
            seen[rows, columns] = True
    return best, index


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where positions i and i + shift both lie in [0, size): the slice of i and the slice of i + shift."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))


def _gather(frames: Tensor, index: Tensor) -> Tensor:
    """``frames`` (B, T, C, H, W) at the flat positions ``index`` (B, T, H, W)."""
    flat = index.flatten(2).unsqueeze(2).expand(-1, -1, frames.shape[2], -1)
    return frames.flatten(3).gather(3, flat).view(frames.shape)


def _scatter(updates: Tensor, index: Tensor) -> Tensor:
    """The adjoint of :func:`_gather`: sums ``updates`` (B, T, C, H, W) into the positions ``index``."""
    flat = index.flatten(2).unsqueeze(2).expand(-1, -1, updates.shape[2], -1)
    return torch.zeros_like(updates.flatten(3)).scatter_add_(3, flat, updates.flatten(3)).view(updates.shape)
