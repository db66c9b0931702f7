"""One-hot attention against what else one could do. Torch alone.

* unfold: the literal definition; windows of K and V are copied window^2 times.
* loops: plain torch over the window's shifts.
* fused: what mana_dist.ops uses here (C on a CPU, Triton on a GPU).
* softmax_window, dense: the other two settings of model.attention, as the network computes them.
* released: softmax over the whole frame, weighted by a Gaussian of the distance: what the authors' released code does.
"""

import functools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.released import released_attention
from benchmarks.report import Row
from benchmarks.timing import peak_extra_bytes, timed
from mana_dist.ops import (
    dense_attention,
    fused_cpu,
    loops,
    one_hot_attention,
    softmax_window_attention,
)

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def unfold_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """The paper's words: unfold, score, argmax, gather. Positions outside the frame get no chance."""
    batch, frames, channels, height, width = key.shape
    taps = window * window
    keys = F.unfold(key.flatten(0, 1), window, padding=window // 2).view(batch, frames, channels, taps, height * width)
    values = F.unfold(value.flatten(0, 1), window, padding=window // 2).view_as(keys)
    inside = F.unfold(key.new_ones(1, 1, height, width), window, padding=window // 2).view(1, 1, taps, -1) > 0
    scores = (query.flatten(2)[:, None, :, None] * keys).sum(2).masked_fill(~inside, -math.inf)
    best, index = scores.max(2)
    chosen = values.gather(3, index[:, :, None, None].expand(-1, -1, channels, 1, -1)).squeeze(3)
    return (best.unsqueeze(2) * chosen).view_as(key)


def loop_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """The plain implementation, through autograd."""

    class Loops(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):  # type: ignore[no-untyped-def]
            output, score, index = loops.forward(*tensors, window)
            ctx.save_for_backward(*tensors, score, index)
            return output

        @staticmethod
        def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
            return loops.backward(grad_output, *ctx.saved_tensors, window)

    output: Tensor = Loops.apply(query, key, value)
    return output


def whole_frame_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """What model.attention dense does; ``window`` plays no part."""
    del window
    return dense_attention(query, key, value)


IMPLEMENTATIONS: dict[str, Attention] = {
    "unfold": unfold_attention,
    "loops": loop_attention,
    "fused": one_hot_attention,
    "softmax_window": softmax_window_attention,
    "dense": whole_frame_attention,
    "released": released_attention,
}


def make_call(
    device: str, name: str, shape: tuple[int, ...], window: int, backward: bool, bf16: bool
) -> Callable[[], object]:
    """A call of one implementation on random channels-last inputs, as the model's convolutions give them."""
    batch, frames, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if bf16 else torch.float32

    def make(*size: int) -> Tensor:
        tensor = torch.randn(*size, generator=generator).to(device, dtype)
        return tensor.movedim(-1, -3).requires_grad_(backward)

    query = make(batch, height, width, channels)
    key, value = make(batch, frames, height, width, channels), make(batch, frames, height, width, channels)
    grad = torch.randn(shape, generator=generator).to(device, dtype)
    call = functools.partial(IMPLEMENTATIONS[name], query, key, value, window)
    if not backward:
        return call
    return lambda: torch.autograd.grad(call(), (query, key, value), grad)


def rows(small: bool) -> Iterator[Row]:
    """Each implementation at the size of one crop, fp32, and the compiled one in bf16."""
    shape, window = ((1, 3, 8, 12, 12), 3) if small else ((1, 7, 64, 64, 64), 9)
    if not fused_cpu.available():
        raise RuntimeError("the compiled kernel is not here: build it (make install)")
    reference: tuple[float, float, int] | None = None
    for name, bf16 in (*((name, False) for name in IMPLEMENTATIONS), ("fused", True)):
        ready = functools.partial(make_call, name=name, shape=shape, window=window, bf16=bf16)
        # Seconds a call, and no second one of the literal definition.
        least, warm_up = {"unfold": (1, 0), "dense": (2, 1), "released": (2, 1)}.get(name, (5, 2))
        settings = {"least_runs": least, "budget": 0.05 if small else 1.0, "warm_up": warm_up}
        forward = timed(ready("cpu", backward=False), "cpu", **settings).seconds
        both = timed(ready("cpu", backward=True), "cpu", **settings).seconds
        memory = peak_extra_bytes(functools.partial(ready, backward=True), "cpu")
        reference = reference or (forward, both, memory)
        label = f"{name}, {'bf16' if bf16 else 'fp32'}"
        yield Row(f"{label}, forward", forward * 1e3, "ms", reference[0] / forward, "unfold")
        yield Row(f"{label}, with backward", both * 1e3, "ms", reference[1] / both, "unfold")
        yield Row(f"{label}, memory", memory / 2**20, "MiB", reference[2] / max(memory, 1), "less than unfold")
