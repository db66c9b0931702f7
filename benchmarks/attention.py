"""One-hot attention against what else one could do: ``python -m benchmarks.attention``. Torch alone.

* unfold: the literal definition; windows of K and V are copied window^2 times.
* loops: plain torch over the window's shifts.
* fused: what mana_dist.ops uses here (C on a CPU, Triton on a GPU).
* softmax_window, dense: the other two settings of model.attention, as the network computes them.
* released: softmax over the whole frame, weighted by a Gaussian of the distance: what the authors' released code does.
"""

import argparse
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import describe, peak_extra_bytes, timed
from mana_dist.ops import (
    dense_attention,
    fused_cpu,
    fused_gpu,
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


def released_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Softmax attention over each whole frame with a Gaussian of the distance, sigma 4; ``window`` plays no part."""
    del window
    height, width = query.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1).to(query)
    gaussian = torch.exp(-torch.cdist(places, places).square() / (2 * 4.0**2))
    scores = torch.einsum("bcp,btcq->btpq", query.flatten(2), key.flatten(3))
    return torch.einsum("btpq,btcq->btcp", scores.softmax(-1) * gaussian, value.flatten(3)).view_as(key)


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Attentions side by side.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=64, help="side of the frame")
    parser.add_argument("--window", type=int, default=9)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = (options.batch, 7, 64, options.size, options.size)
    fused = fused_gpu.available() if options.device == "cuda" else fused_cpu.available()
    print(f"{describe(options.device)}; B, T, C', H, W = {shape}, window {options.window}")
    if not fused:
        print("no compiled kernel here: 'fused' falls back to loops")
    print(f"{'':14}{'forward':>20}{'forward+backward':>30}{'extra memory':>22}")
    reference: tuple[float, float, int] | None = None
    for name in IMPLEMENTATIONS:
        setting = {"name": name, "shape": shape, "window": options.window, "bf16": options.bf16}
        forward = timed(make_call(options.device, backward=False, **setting), options.device)
        both = timed(make_call(options.device, backward=True, **setting), options.device)
        memory = peak_extra_bytes(functools.partial(make_call, backward=True, **setting), options.device)
        reference = reference or (forward.seconds, both.seconds, memory)
        print(
            f"{name:14}{forward.seconds * 1e3:10.1f} ms {reference[0] / forward.seconds:5.1f}x"
            f"{both.seconds * 1e3:16.1f} ms {reference[1] / both.seconds:5.1f}x"
            f"{memory / 2**20:16.0f} MiB  1/{reference[2] / max(memory, 1):.0f}"
            f"   (spread {forward.spread:.0%}, {both.spread:.0%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
