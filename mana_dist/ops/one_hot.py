"""One-hot attention inside a spatial window (paper section 3.2, equations 1 and 2)."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mana_dist.ops import fused_cpu, fused_gpu, loops
from mana_dist.ops.shifts import check_shapes, check_window

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
    output: Tensor = _OneHotAttention.apply(query, key, value, window)
    return output


class _OneHotAttention(torch.autograd.Function):
    """Saves the winning index and score only; the windows are never materialised."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
        output, score, index = _implementation(query).forward(query, key, value, window)
        ctx.save_for_backward(query, key, value, score, index)
        ctx.window = window
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        query, key, value, score, index = ctx.saved_tensors
        gradients = _implementation(query).backward(
            grad_output, query, key, value, score, index, ctx.window, tuple(ctx.needs_input_grad[:3])
        )
        return *gradients, None


def _implementation(query: Tensor) -> ModuleType:
    """The fastest implementation for the tensors' device and dtype; each has ``forward`` and ``backward``."""
    if query.is_cuda and query.dtype in _GPU_DTYPES and fused_gpu.available():
        return fused_gpu
    if query.device.type == "cpu" and query.dtype in _CPU_DTYPES and fused_cpu.available():
        return fused_cpu
    return loops
