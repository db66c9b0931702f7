"""Softmax attention inside a spatial window: what one-hot attention is compared with (paper section 3.2)."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mana_dist.ops.shifts import (
    Shift,
    check_shapes,
    check_window,
    empty_result,
    pairs_inside,
    register_operator,
    shifts,
)


def softmax_window_attention(query: Tensor, key: Tensor, value: Tensor, window: int = 9) -> Tensor:
    """Average, per pixel and per frame, over all positions of a window by the softmax of their scores.

    For the pixel p of each frame t, with j over the positions of the ``window`` x ``window`` square centred at p that
    lie inside the frame::

        out[t, p] = sum_j softmax_j(<query[p], key[t, j]>) * value[t, j]

    The paper's one-hot attention with its last step undone: the same keys and the same scores, but "the softmax
    normalised correlation matrix" of conventional non-local attention in place of equations 1 and 2. Scores are not
    scaled, as the paper's are not (Gamma = Q K, and equation 3), nor those of its reference, Wang et al. 2018. Each
    frame has a softmax of its own, as each has a winner of its own in the one-hot attention.

    The window is walked shift by shift with a running maximum, sum and average (an online softmax), and walked again
    in the backward pass, which keeps inputs, output and one number for each pixel and frame. Memory beyond those is
    one product of a feature map and, of inputs that are not float32 with channels innermost, copies that are; windows
    are never copied. Plain torch on any device; every sum has a fixed order, so equal inputs
    give equal bits. NaN shows in every window that holds it.

    Args:
        query: (B, C, H, W), floating point.
        key: (B, T, C, H, W), dtype and device of ``query``.
        value: (B, T, C, H, W), dtype and device of ``query``.
        window: side of the window, odd.

    Returns:
        (B, T, C, H, W), dtype of ``query``.

    Raises:
        ValueError: shapes do not match, or ``window`` is even or not positive.
    """
    check_window(window)
    check_shapes(query, key, value)
    output, _ = _attend(query, key, value, window)
    return output


def _attend_kernel(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The output, and the logarithm of the softmax's denominator, from which its weights are computed again."""
    output, denominator = _forward(_prepared(query.unsqueeze(1)), _prepared(key), _prepared(value), window)
    return output.to(query.dtype), denominator


def _gradients_kernel(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    denominator: Tensor,
    window: int,
    needs: list[bool],
) -> list[Tensor]:
    """The gradients of query, key and value, those that ``needs`` asks for."""
    grad_output = _prepared(grad_output)
    widened = (_prepared(query.unsqueeze(1)), _prepared(key), _prepared(value))
    # The part of the softmax's Jacobian that all positions of a window share.
    shared = (grad_output * output).sum(2, keepdim=True)
    found = _backward(grad_output, shared, *widened, denominator, window, (needs[0], needs[1], needs[2]))
    return [
        gradient.view(tensor.shape).to(tensor.dtype)
        for gradient, tensor in zip(found, (query, key, value), strict=True)
        if gradient is not None
    ]


def _shapes(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(query.dtype, torch.float32)
    return empty_result(value, query.dtype), torch.empty_like(key[:, :, :1], dtype=wide)


_attend, _gradients = register_operator(
    "softmax_window_attention", _attend_kernel, _gradients_kernel, _shapes, slice(None)
)


@register_flop_formula(torch.ops.mana.softmax_window_attention)
def _forward_flops(query: torch.Size, key: torch.Size, value: torch.Size, window: int, **_: Any) -> int:
    """For each pixel, frame and position inside the frame: a product of C channels, and a weighted value added."""
    return math.prod(key[:3]) * 4 * pairs_inside(window, *key[3:])


@register_flop_formula(torch.ops.mana.softmax_window_attention_backward)
def _backward_flops(grad_output: torch.Size, query: torch.Size, key: torch.Size, *arguments: Any, **_: Any) -> int:
    """For each position a product for each gradient, and one for the weight's; the scores made again do not count."""
    for_query, for_key, for_value = arguments[-1]
    for_weight = for_query or for_key
    products = 2 * (for_value + for_weight + for_query + for_key)
    return math.prod(key[:3]) * (products * pairs_inside(arguments[-2], *key[3:]) + 2 * math.prod(key[3:]))


def _forward(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The output (B, T, C, H, W), and the logarithm of the softmax's denominator (B, T, 1, H, W)."""
    output = empty_result(value, value.dtype).zero_()
    # Not -inf: exp(-inf - -inf) is NaN, and would stay in a sum that later, finite scores should make.
    highest = torch.full_like(key[:, :, :1], torch.finfo(key.dtype).min)
    total = torch.zeros_like(highest)
    for (pixels, targets), score in _scores(query, key, window):
        higher = torch.maximum(highest[pixels], score)
        fade = (highest[pixels] - higher).exp_()
        weight = (score - higher).exp_()
        highest[pixels] = higher
        total[pixels].mul_(fade).add_(weight)
        output[pixels].mul_(fade).addcmul_(weight, value[targets])
    return output.div_(total), highest.add_(total.log_())


def _backward(
    grad_output: Tensor,
    shared: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    denominator: Tensor,
    window: int,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of query (B, 1, C, H, W), key and value, None where ``needs`` does not ask for one."""
    grads = [
        torch.zeros_like(tensor) if need else None for tensor, need in zip((query, key, value), needs, strict=True)
    ]
    grad_query, grad_key, grad_value = grads
    for (pixels, targets), score in _scores(query, key, window):
        weight = (score - denominator[pixels]).exp_()
        if grad_value is not None:
            grad_value[targets].addcmul_(weight, grad_output[pixels])
        if grad_query is None and grad_key is None:
            continue
        grad_score = (grad_output[pixels] * value[targets]).sum(2, keepdim=True).sub_(shared[pixels]).mul_(weight)
        if grad_key is not None:
            grad_key[targets].addcmul_(grad_score, query[pixels])
        if grad_query is not None:
            grad_query[pixels].add_((grad_score * key[targets]).sum(1, keepdim=True))
    return grad_query, grad_key, grad_value


def _scores(query: Tensor, key: Tensor, window: int) -> Iterator[tuple[Shift, Tensor]]:
    """Every shift with the scores (B, T, 1, h, w) of the pixels that it does not lead out of the frame."""
    for shift in shifts(window, *key.shape[-2:]):
        # A product and a sum: einsum turns this into a batch of tiny matrix products, slower on CPU.
        yield shift, (query[shift.pixels] * key[shift.targets]).sum(2, keepdim=True)


def _prepared(tensor: Tensor) -> Tensor:
    """At least float32, and channels innermost in memory: both the sums and the weighting run several times faster so.

    A channels-last float32 tensor is itself.
    """
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return tensor.movedim(-3, -1).to(wide).contiguous().movedim(-1, -3)
