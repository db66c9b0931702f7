"""One-hot attention inside a spatial window (paper section 3.2, equations 1 and 2)."""

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mana_dist.ops import fused_cpu, fused_gpu, loops
from mana_dist.ops.shifts import check_shapes, check_window, empty_result, pairs_inside, register_operator

_GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_CPU_DTYPES = (torch.float32, torch.bfloat16)


def one_hot_attention(query: Tensor, key: Tensor, value: Tensor, window: int = 9) -> Tensor:
    """Attend, per pixel and per frame, to the single best match inside a window.

    For the pixel p of each frame t, with j over the positions of the ``window`` x ``window`` square centred at p::

        s = max_j <query[p], key[t, j]>,  d = argmax_j <query[p], key[t, j]>      (equation 1)
        out[t, p] = s * value[t, d]                                               (equation 2)

    Positions outside the frame never win; of equal scores the first in row-major window order wins; a NaN score wins
    over every number, as in ``torch.max``, so that a broken input shows in the output. The winning position is a
    constant for the gradient, which flows through the score and the value.

    Memory beyond inputs and output is O(B T H W) in the fused implementations (C on a CPU, Triton on a GPU) and a few
    copies of ``key`` in the plain one, which serves where the others cannot; windows are never copied. Scores of
    bfloat16 and float16 inputs are summed in float32.

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
    check_window(window)
    check_shapes(query, key, value)
    output, _, _ = _attend(query, key, value, window)
    return output


def _attend_kernel(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """The output with the winning scores and positions, which the backward pass needs; windows are never made."""
    return _implementation(query).forward(query, key, value, window)


def _gradients_kernel(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score: Tensor,
    index: Tensor,
    window: int,
    needs: list[bool],
) -> list[Tensor]:
    """The gradients of query, key and value, those that ``needs`` asks for."""
    gradients = _implementation(query).backward(
        grad_output, query, key, value, score, index, window, (needs[0], needs[1], needs[2])
    )
    return [gradient for gradient in gradients if gradient is not None]


def _shapes(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    places = key.shape[:2] + key.shape[3:]
    score = key.new_empty(places, dtype=torch.promote_types(query.dtype, torch.float32))
    return empty_result(value, query.dtype), score, key.new_empty(places, dtype=torch.int32)


_attend, _gradients = register_operator("one_hot_attention", _attend_kernel, _gradients_kernel, _shapes, slice(1, None))


@register_flop_formula(torch.ops.mana.one_hot_attention)
def _forward_flops(query: torch.Size, key: torch.Size, value: torch.Size, window: int, **_: Any) -> int:
    """A product of C channels for each pixel, frame and position inside the frame, and a scaling of the winner."""
    return math.prod(key[:3]) * (2 * pairs_inside(window, *key[3:]) + math.prod(key[3:]))


@register_flop_formula(torch.ops.mana.one_hot_attention_backward)
def _backward_flops(grad_output: torch.Size, query: torch.Size, key: torch.Size, *arguments: Any, **_: Any) -> int:
    """For the winner alone: a scaling for the value; for query and key a product each, and one for the score's."""
    for_query, for_key, for_value = arguments[-1]
    return math.prod(key) * (for_value + 2 * (for_query or for_key) + 2 * for_query + 2 * for_key)


def _implementation(query: Tensor) -> ModuleType:
    """The fastest implementation for the tensors' device and dtype; each has ``forward`` and ``backward``."""
    if query.is_cuda and query.dtype in _GPU_DTYPES and fused_gpu.available():
        return fused_gpu
    if query.device.type == "cpu" and query.dtype in _CPU_DTYPES and fused_cpu.available():
        return fused_cpu
    return loops
