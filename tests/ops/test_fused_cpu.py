"""The fused CPU implementation against the definition: a literal loop, and a dense search in double precision."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from mana_dist.ops import compiled, fused_cpu, one_hot_attention
from tests.ops.definitions import one_hot_literal

needs_kernel = pytest.mark.skipif(not fused_cpu.available(), reason="the kernel is not built here")


def definition(query: Tensor, key: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Best score and its flat position: a pixel's scores in double precision, and numpy's first maximum or NaN."""
    batch, frames, _, height, width = key.shape
    ys, xs = np.divmod(np.arange(height * width), width)
    score, index = np.empty((batch, frames, height, width)), np.empty((batch, frames, height, width), np.int32)
    with np.errstate(invalid="ignore"):
        for b, t, y, x in np.ndindex(batch, frames, height, width):
            inside = np.flatnonzero((abs(ys - y) <= window // 2) & (abs(xs - x) <= window // 2))
            keys = key[b, t].flatten(1).double().numpy()[:, inside]
            scores = (query[b, :, y, x].double().numpy()[:, None] * keys).sum(0)
            best = scores.argmax()
            score[b, t, y, x], index[b, t, y, x] = scores[best], inside[best]
    return torch.from_numpy(score), torch.from_numpy(index)


def gathered(frames: Tensor, index: Tensor) -> Tensor:
    flat = index.long().flatten(2).unsqueeze(2).expand(-1, -1, frames.shape[2], -1)
    return frames.flatten(3).gather(3, flat).view(frames.shape)


def whole_numbers(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Small integers: every score is exact in float32 whatever the order of its sum, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, *pixels = shape
    query = torch.randint(-2, 3, (batch, *pixels), generator=generator).float()
    key, value = (torch.randint(-2, 3, shape, generator=generator).float() for _ in range(2))
    return query, key, value


def real_numbers(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and a gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, *pixels = shape
    query = torch.randn((batch, *pixels), generator=generator)
    key, value, grad = (torch.randn(shape, generator=generator) for _ in range(3))
    return query, key, value, grad


def channels_innermost(tensor: Tensor) -> Tensor:
    return tensor.movedim(-3, -1).contiguous().movedim(-1, -3)


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets the smallest problem use as many threads as torch may; restores torch's number afterwards."""
    before = torch.get_num_threads()
    monkeypatch.setattr(compiled, "_WORK_PER_THREAD", 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh() -> Iterator[None]:
    """As in a new process, which has not chosen a library yet."""
    cached = compiled.library, fused_cpu._library
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@needs_kernel
@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 11, 13, 15, 21])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 2, 3, 5, 7),  # smaller than most windows
        (1, 2, 6, 17, 19),  # neither side nor the channels a multiple of a register
        (1, 1, 2, 3, 70),  # wider than a tile
        (1, 3, 1, 1, 1),
    ],
)
def test_the_winner_is_the_first_of_the_best_inside_the_frame(shape: tuple[int, ...], window: int) -> None:
    query, key, value = whole_numbers(*shape)
    expected_score, expected_index = definition(query, key, window)
    output, score, index = fused_cpu.forward(query, key, value, window)
    assert torch.equal(index, expected_index)
    assert torch.equal(score, expected_score.float())
    assert torch.equal(output, expected_score.float().unsqueeze(2) * gathered(value, expected_index))


@needs_kernel
def test_positions_outside_the_frame_never_win_even_against_negative_scores() -> None:
    query, key, value = torch.ones(1, 1, 3, 3), torch.full((1, 1, 1, 3, 3), -2.0), torch.full((1, 1, 1, 3, 3), 5.0)
    output, _, _ = fused_cpu.forward(query, key, value, 9)
    assert torch.equal(output, torch.full((1, 1, 1, 3, 3), -10.0))


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_numbers_like_in_the_definition(broken: float, dtype: torch.dtype) -> None:
    # Infinity times the zeros of the query is NaN, so all three kinds of NaN, inf and -inf meet in every window.
    query, key, value = (tensor.to(dtype) for tensor in whole_numbers(1, 2, 4, 9, 37))
    generator = torch.Generator().manual_seed(1)
    key[torch.rand(key.shape, generator=generator) < 0.05] = broken
    query[:, :, 4, ::7] = broken
    expected_score, expected_index = definition(query, key, 5)
    output, score, index = fused_cpu.forward(query, key, value, 5)
    assert expected_score.isnan().any()
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(score, expected_score.float(), rtol=0, atol=0, equal_nan=True)
    expected = (expected_score.float().unsqueeze(2) * gathered(value.float(), expected_index)).to(dtype)
    torch.testing.assert_close(output, expected, rtol=0, atol=0, equal_nan=True)


@needs_kernel
def test_where_every_score_is_minus_infinity_the_first_position_wins() -> None:
    query, key = torch.ones(1, 1, 3, 20), torch.full((1, 1, 1, 3, 20), -math.inf)
    output, score, index = fused_cpu.forward(query, key, torch.ones_like(key), 3)
    assert torch.equal(score, torch.full((1, 1, 3, 20), -math.inf))
    assert torch.equal(output[:, :, 0], score)
    assert index[0, 0].tolist() == [[max(y - 1, 0) * 20 + max(x - 1, 0) for x in range(20)] for y in range(3)]


@needs_kernel
@pytest.mark.parametrize(("shape", "window"), [((2, 2, 5, 6, 7), 3), ((1, 2, 35, 5, 18), 5), ((1, 3, 1, 2, 3), 9)])
def test_values_and_gradients_equal_the_literal_definition(shape: tuple[int, ...], window: int) -> None:
    query, key, value, weights = real_numbers(*shape)
    exact = [tensor.double().requires_grad_() for tensor in (query, key, value)]
    expected = one_hot_literal(exact[0], exact[1], exact[2], window)
    expected_grads = torch.autograd.grad((expected * weights.double()).sum(), exact)

    output, score, index = fused_cpu.forward(query, key, value, window)
    grads = fused_cpu.backward(weights, query, key, value, score, index, window)

    torch.testing.assert_close(output.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad is not None
        torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-5, atol=1e-4)


@needs_kernel
@pytest.mark.parametrize("channels", [20, 21])  # the processor's products take channels by two
def test_bfloat16_is_summed_in_float32_and_rounded_once(channels: int) -> None:
    inputs = [tensor.bfloat16() for tensor in real_numbers(1, 2, channels, 6, 9)]
    query, key, value, weights = inputs
    output, score, index = fused_cpu.forward(query, key, value, 5)
    exact = [tensor.double().requires_grad_() for tensor in (query, key, value)]
    expected = one_hot_literal(exact[0], exact[1], exact[2], 5)
    expected_grads = torch.autograd.grad((expected * weights.double()).sum(), exact)
    grads = fused_cpu.backward(weights, query, key, value, score, index, 5)

    half_a_step = 2.0**-8
    assert output.dtype == torch.bfloat16
    assert score.dtype == torch.float32
    torch.testing.assert_close(output.double(), expected.detach(), rtol=half_a_step, atol=1e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad is not None
        assert grad.dtype == torch.bfloat16
        torch.testing.assert_close(grad.double(), expected_grad, rtol=half_a_step, atol=1e-4)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_of_the_inputs_does_not_matter(dtype: torch.dtype) -> None:
    tensors = [tensor.to(dtype) for tensor in real_numbers(2, 3, 6, 7, 19)]
    layouts = [
        tuple(tensor.contiguous() for tensor in tensors),
        tuple(channels_innermost(tensor) for tensor in tensors),
        tuple(tensor.repeat_interleave(2, -1)[..., ::2] for tensor in tensors),
        tuple(tensor.transpose(-1, -2).contiguous().transpose(-1, -2) for tensor in tensors),
    ]
    results = []
    for query, key, value, weights in layouts:
        output, score, index = fused_cpu.forward(query, key, value, 5)
        results.append((output, score, index, *fused_cpu.backward(weights, query, key, value, score, index, 5)))
    for result in results[1:]:
        for tensor, first in zip(result, results[0], strict=True):
            assert tensor is not None
            assert first is not None
            assert torch.equal(tensor, first)


@needs_kernel
def test_a_gradient_that_is_one_number_everywhere_is_read_as_such() -> None:
    query, key, value, _ = real_numbers(1, 2, 4, 5, 6)
    _, score, index = fused_cpu.forward(query, key, value, 3)
    expanded = fused_cpu.backward(torch.ones(1, 1, 1, 1, 1).expand(key.shape), query, key, value, score, index, 3)
    whole = fused_cpu.backward(torch.ones(key.shape), query, key, value, score, index, 3)
    for one, other in zip(expanded, whole, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_with_frames_folded_into_channels_is_a_channels_last_view(dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in whole_numbers(2, 3, 4, 5, 6))
    output, _, _ = fused_cpu.forward(query, key, value, 3)
    folded = output.flatten(1, 2)
    assert folded.data_ptr() == output.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last)


@needs_kernel
@pytest.mark.parametrize("asked", [(True, False, False), (False, True, False), (False, False, True), (False,) * 3])
def test_only_the_asked_gradients_are_made(asked: tuple[bool, bool, bool]) -> None:
    query, key, value, weights = real_numbers(1, 2, 4, 5, 6)
    _, score, index = fused_cpu.forward(query, key, value, 3)
    everything = fused_cpu.backward(weights, query, key, value, score, index, 3)
    for grad, full, wanted in zip(
        fused_cpu.backward(weights, query, key, value, score, index, 3, asked), everything, asked, strict=True
    ):
        assert (grad is not None) == wanted
        assert grad is None or (full is not None and torch.equal(grad, full))


@needs_kernel
@pytest.mark.usefixtures("many_threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    query, key, value, weights = (channels_innermost(tensor) for tensor in real_numbers(2, 3, 20, 13, 75))
    results = []
    for threads in (1, 2, 3, 7, 200):  # 200 is more than there are rows of queries
        torch.set_num_threads(threads)
        output, score, index = fused_cpu.forward(query, key, value, 7)
        results.append((output, score, index, *fused_cpu.backward(weights, query, key, value, score, index, 7)))
    for result in results[1:]:
        for tensor, single in zip(result, results[0], strict=True):
            assert tensor is not None
            assert single is not None
            assert torch.equal(tensor, single)


@needs_kernel
def test_an_empty_batch_has_an_empty_output() -> None:
    query, key, value, weights = (tensor[:0] for tensor in real_numbers(1, 2, 4, 5, 6))
    output, score, index = fused_cpu.forward(query, key, value, 3)
    assert output.shape == key.shape
    grad_query, _, _ = fused_cpu.backward(weights, query, key, value, score, index, 3)
    assert grad_query is not None
    assert grad_query.shape == query.shape


def supported(name: str) -> bool:
    return all(torch.cpu.get_capabilities().get(need) for need in compiled.BUILDS[name])


@needs_kernel
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", compiled.BUILDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_build_equals_the_definition(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if not supported(name):
        pytest.skip("this processor cannot run it")
    monkeypatch.setattr(compiled, "BUILDS", {name: set()})
    if not fused_cpu.available():
        pytest.skip("the compiler could not build it")
    # Wider than a tile, with more shifts to a row than are worked on together.
    query, key, value = (tensor.to(dtype) for tensor in whole_numbers(2, 2, 6, 4, 70))
    expected_score, expected_index = definition(query, key, 11)
    output, score, index = fused_cpu.forward(query, key, value, 11)
    assert torch.equal(index, expected_index)
    assert torch.equal(score, expected_score.float())
    assert torch.equal(output, (score.unsqueeze(2) * gathered(value.float(), index)).to(dtype))


@pytest.mark.usefixtures("fresh")
def test_a_library_is_taken_only_where_the_processor_has_all_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    finder = SimpleNamespace(find_spec=lambda name, _: tried.append(name))
    monkeypatch.setattr("mana_dist.ops.compiled.PathFinder", finder)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "fma3": True, "avx512_f": True})
    assert not fused_cpu.available()
    assert list(dict.fromkeys(tried)) == ["_fused_cpu_avx2", "_fused_cpu"]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("reason", ["missing", "of another version"])
def test_without_its_library_the_loop_serves_and_one_line_says_how_to_mend_it(
    reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(compiled, "_log", SimpleNamespace(warning=lambda text, *values: lines.append(text % values)))
    for name in compiled.SOURCES:  # of a checkout that was updated and not installed again
        (tmp_path / name).write_text("/* newer */", encoding="utf-8")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    built = Path(compiled.__spec__.origin or "").parent
    if reason == "missing":
        built = tmp_path
    elif not list(built.glob("_fused_cpu*")):
        pytest.skip("the kernel is not built here")
    monkeypatch.setattr(compiled, "_folders", lambda: [built])
    query, key, value = whole_numbers(1, 1, 2, 3, 4)
    for _ in range(2):
        output = one_hot_attention(query, key, value, 3)
    score, index = definition(query, key, 3)
    assert torch.equal(output, score.float().unsqueeze(2) * gathered(value, index))
    (line,) = lines
    assert f"the compiled kernels of {tmp_path} are {reason};" in line
    assert "pip install -e ." in line
