"""One-hot attention as a loop over the window's shifts: plain torch, any device, any floating dtype.

Serves where there is no compiled kernel and no Triton; what the fused kernels are compared with. Memory beyond inputs
and output is a few copies of ``key``; windows are never materialised.
"""

import torch
from torch import Tensor

from mana_dist.ops.shifts import empty_innermost, empty_result, shifts


def forward(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """One-hot attention as :func:`mana_dist.ops.one_hot_attention` defines it.

    Args:
        query: (B, C, H, W).
        key: (B, T, C, H, W).
        value: (B, T, C, H, W).
        window: side of the search window, odd and positive.

    Returns:
        The output (B, T, C, H, W) in the dtype of ``query``, in memory (B, H, W, T, C); the winning score (B, T, H, W),
        float32 or wider; its flat position y * W + x in the frame, (B, T, H, W), int32.
    """
    score, index = _best_match(_widened(query), _widened(key), window)
    output = empty_result(value, query.dtype).copy_(score.unsqueeze(2) * _gather(value, index))
    return output, score, index.int()


def backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score: Tensor,
    index: Tensor,
    window: int,  # for the fused kernels
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of query, key and value, channels innermost in memory; None where ``needs`` does not ask for one."""
    index = index.long()
    grad_output = _widened(grad_output)
    grad_query = grad_key = grad_value = None
    if needs[2]:
        grad_value = _scatter(score.unsqueeze(2) * grad_output, index)
    if needs[0] or needs[1]:
        grad_score = (grad_output * _gather(value, index)).sum(2, keepdim=True)
        if needs[0]:
            grad_query = (grad_score * _gather(key, index)).sum(1)
        if needs[1]:
            grad_key = _scatter(grad_score * query.unsqueeze(1), index)
    query_key_value = zip((query, key, value), (grad_query, grad_key, grad_value), strict=True)
    first, second, third = (None if grad is None else empty_innermost(of).copy_(grad) for of, grad in query_key_value)
    return first, second, third


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _best_match(query: Tensor, key: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The best score and its flat position y * W + x in the frame, both (B, T, H, W)."""
    batch, frames, _, height, width = key.shape
    best = query.new_full((batch, frames, height, width), -torch.inf)
    index = torch.zeros((batch, frames, height, width), dtype=torch.int64, device=query.device)
    position = torch.arange(height * width, device=query.device).view(height, width)
    seen = torch.zeros((height, width), dtype=torch.bool, device=query.device)
    for pixels, targets in shifts(window, height, width):
        # A product and a sum: einsum turns this into a batch of tiny matrix products, five times slower on CPU.
        score = (query[:, None][pixels] * key[targets]).sum(2)
        running = best[pixels]
        # A pixel's first position inside the frame is taken whatever its score, -inf included.
        wins = (score > running) | ~seen[pixels] | (score.isnan() & ~running.isnan())
        best[pixels] = torch.where(wins, score, running)
        index[pixels] = torch.where(wins, position[targets], index[pixels])
        seen[pixels] = True
    return best, index


def _gather(frames: Tensor, index: Tensor) -> Tensor:
    """``frames`` (B, T, C, H, W) at the flat positions ``index`` (B, T, H, W)."""
    flat = index.flatten(2).unsqueeze(2).expand(-1, -1, frames.shape[2], -1)
    return frames.flatten(3).gather(3, flat).view(frames.shape)


def _scatter(updates: Tensor, index: Tensor) -> Tensor:
    """The adjoint of :func:`_gather`: sums ``updates`` (B, T, C, H, W) into the positions ``index``."""
    flat = index.flatten(2).unsqueeze(2).expand(-1, -1, updates.shape[2], -1)
    return torch.zeros_like(updates.flatten(3)).scatter_add_(3, flat, updates.flatten(3)).view(updates.shape)
