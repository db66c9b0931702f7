"""Whether the attention kernels are right on this device, and which settings of them work and are fast."""

import time
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.task import Task, deterministic
from benchmarks.timing import timed
from mana_dist.ops import dense_attention, fused_gpu, loops, one_hot_attention, softmax_window_attention

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def random_inputs(shape: tuple[int, int, int, int, int], dtype: torch.dtype, device: str) -> Inputs:
    """Query, key, value and the gradient of the output, channels innermost, as the model's convolutions give them."""
    generator = torch.Generator(device).manual_seed(sum(shape))
    batch, frames, channels, height, width = shape

    def make(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device).to(dtype).movedim(-1, -3)

    several = (batch, frames, height, width, channels)
    query = make(batch, height, width, channels) * channels**-0.5
    return query, make(*several), make(*several), make(*several)


def checks(task: Task) -> None:
    """Run tests/ops on this device: each kernel against a literal loop, and the operators as they are called."""
    from tests.ops.definitions import one_hot_literal, softmax_literal

    def operator(name: str, shape: tuple[int, int, int, int, int], window: int) -> None:
        exact = [t.cpu().double().requires_grad_() for t in random_inputs(shape, torch.float32, task.device)[:3]]
        query, key, value, grad = random_inputs(shape, torch.float32, task.device)
        ours = [query.requires_grad_(), key.requires_grad_(), value.requires_grad_()]
        if name == "one_hot":
            expected, found = one_hot_literal(*exact, window), one_hot_attention(*ours, window)
        elif name == "softmax_window":
            expected, found = softmax_literal(*exact, window), softmax_window_attention(*ours, window)
        else:
            expected, found = softmax_literal(*exact, None), dense_attention(*ours)
        wanted = [expected, *torch.autograd.grad(expected, exact, grad.cpu().double())]
        got = [found, *torch.autograd.grad(found, ours, grad)]
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one.detach().cpu().double(), other.detach(), rtol=1e-4, atol=1e-5)

    for name in ("one_hot", "softmax_window", "dense"):
        with deterministic(name == "one_hot"):
            task.attempt(
                f"operator {name} and its gradients",
                lambda name=name: operator(name, (1, 2, 8, 6, 7), 5),
                must_hold=True,
            )
    if task.device != "cuda":
        task.report.note("the Triton kernels need a GPU; tests/ops runs the same checks under Triton's interpreter")
        return
    from tests.ops.fused_gpu_checks import CHECKS

    device = torch.device("cuda")
    for check in CHECKS:
        # Else every number of channels and every window would be tuned anew, seconds each.
        with deterministic():
            before = time.perf_counter()
            task.attempt(
                f"kernels: {check.__name__.removeprefix('check_')}", lambda check=check: check(device), must_hold=True
            )
            task.report.row(f"{check.__name__}, compiling included", time.perf_counter() - before, "s")
    for dtype in (torch.float32, torch.bfloat16):
        task.attempt(f"kernels at full size, {dtype}, tuned", lambda dtype=dtype: _full_size(dtype), must_hold=True)


def _full_size(dtype: torch.dtype) -> None:
    """A batch of the paper's crops against plain torch in double precision."""
    query, key, value, grad = random_inputs((2, 7, 64, 64, 64), dtype, "cuda")
    output, score, index = fused_gpu.forward(query, key, value, 9)
    grads = fused_gpu.backward(grad, query, key, value, score, index, 9)
    wide = [tensor.double() for tensor in (query, key, value)]
    exact = loops.forward(*wide, 9)
    # Of two scores that differ by rounding alone either may win.
    other = index != exact[2]
    share = other.double().mean().item()
    assert share < 1e-4, f"{share:.2%} of the winners differ"
    torch.testing.assert_close(score.double(), exact[1], rtol=1e-5, atol=1e-5)
    # The gradients of the winners that were taken, which is what the kernels were asked for.
    expected = loops.backward(grad.double(), *wide, score.double(), index, 9)
    for one, wanted in zip(grads, expected, strict=True):
        assert one is not None
        assert wanted is not None
        error = ((one.double() - wanted).norm() / wanted.norm()).item()
        assert error < (1e-5 if dtype == torch.float32 else 4e-3), f"relative error {error:.2g}"
    same = (~other).unsqueeze(2)
    error = ((output.double() - exact[0]) * same).norm().item() / exact[0].norm().item()
    assert error < (1e-5 if dtype == torch.float32 else 4e-3), f"relative error of the output {error:.2g}"


TILES = tuple((elements, warps) for elements in (512, 1024, 2048, 4096, 8192) for warps in (1, 2, 4, 8))
"""Elements and warps of a program, more of them than the operator chooses from."""


def tiles(task: Task) -> None:
    """Time and registers of the three kernels at many tile sizes, at the paper's training size."""
    if task.device != "cuda":
        task.report.note("tile sizes are the Triton kernels': nothing to try without a GPU")
        return
    shape = (2, 7, 64, 64, 64) if task.small else (16, 7, 64, 64, 64)
    for dtype in (torch.bfloat16, torch.float32):
        inputs = random_inputs(shape, dtype, "cuda")
        found: dict[str, list[tuple[float, str]]] = {"forward": [], "backward": []}
        for elements, warps in TILES:
            # More than 64 elements to a thread spill, fewer than 4 idle.
            if not 4 <= elements // (32 * warps) <= 64:
                continue

            task.attempt(
                f"{dtype}, {elements} elements, {warps} warps", partial(_time_tile, (elements, warps), inputs, found)
            )
        for name, timings in found.items():
            if not timings:
                continue
            timings.sort()
            for seconds, text in timings[:3]:
                task.report.row(f"{name}, {dtype}, {text}", seconds * 1e3, "ms")
            task.report.row(f"{name}, {dtype}, slowest: {timings[-1][1]}", timings[-1][0] * 1e3, "ms")
    task.report.note(f"registers and spills: {_registers()}")


def _time_tile(tile: tuple[int, int], inputs: Inputs, found: dict[str, list[tuple[float, str]]]) -> None:
    """Add the times of both passes with one size of tile to those found."""
    query, key, value, grad = inputs
    with (
        deterministic(),  # takes the first tile, without tuning
        mock.patch.object(fused_gpu, "_PIXEL_TILES", (tile,)),
        mock.patch.object(fused_gpu, "_CHOSEN_TILES", (tile,)),
    ):
        _, score, index = fused_gpu.forward(query, key, value, 9)
        forward = timed(lambda: fused_gpu.forward(query, key, value, 9), "cuda", budget=0.05)
        backward = timed(lambda: fused_gpu.backward(grad, query, key, value, score, index, 9), "cuda", budget=0.05)
    for name, timing in (("forward", forward), ("backward", backward)):
        found[name].append((timing.seconds, f"{tile[0]} elements, {tile[1]} warps"))


def _registers() -> str:
    """What Triton's compiler says of the kernels that it has made here; its cache is no public interface."""
    from mana_dist.ops import triton_kernels

    texts = []
    for name in ("forward_kernel", "query_kernel", "key_value_kernel"):
        kernel: Any = getattr(triton_kernels, name)
        try:
            made = [one for cache in kernel.device_caches.values() for one in cache[0].values()]
            spilled = [one.n_spills for one in made if one.n_spills]
            texts.append(
                f"{name} {len(made)} variants, {min(one.n_regs for one in made)} to {max(one.n_regs for one in made)} "
                f"registers, {len(spilled)} spill (most {max(spilled, default=0)} bytes), shared memory at most "
                f"{max(one.metadata.shared for one in made)} bytes"
            )
        except Exception as error:
            texts.append(f"{name}: not to be had ({error})")
    return "; ".join(texts)
