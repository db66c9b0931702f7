"""The fused CPU implementation against the definition: a literal loop, and a dense search in double precision."""

import math
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mana_dist.ops import fused_cpu
from tests.ops.definitions import one_hot_literal

needs_compiler = pytest.mark.skipif(not fused_cpu.available(), reason="no C compiler here")


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
    monkeypatch.setattr(fused_cpu, "_WORK_PER_THREAD", 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As in a new process with an empty cache folder; the folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fused_cpu._library.cache_clear()
    yield tmp_path
    fused_cpu._library.cache_clear()


@needs_compiler
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


@needs_compiler
def test_positions_outside_the_frame_never_win_even_against_negative_scores() -> None:
    query, key, value = torch.ones(1, 1, 3, 3), torch.full((1, 1, 1, 3, 3), -2.0), torch.full((1, 1, 1, 3, 3), 5.0)
    output, _, _ = fused_cpu.forward(query, key, value, 9)
    assert torch.equal(output, torch.full((1, 1, 1, 3, 3), -10.0))


@needs_compiler
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_numbers_like_in_the_definition(broken: float) -> None:
    # Infinity times the zeros of the query is NaN, so all three kinds of NaN, inf and -inf meet in every window.
    query, key, value = whole_numbers(1, 2, 3, 9, 37)
    generator = torch.Generator().manual_seed(1)
    key[torch.rand(key.shape, generator=generator) < 0.05] = broken
    query[:, :, 4, ::7] = broken
    expected_score, expected_index = definition(query, key, 5)
    output, score, index = fused_cpu.forward(query, key, value, 5)
    assert expected_score.isnan().any()
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(score, expected_score.float(), rtol=0, atol=0, equal_nan=True)
    expected = expected_score.float().unsqueeze(2) * gathered(value, expected_index)
    torch.testing.assert_close(output, expected, rtol=0, atol=0, equal_nan=True)


@needs_compiler
def test_where_every_score_is_minus_infinity_the_first_position_wins() -> None:
    query, key = torch.ones(1, 1, 3, 20), torch.full((1, 1, 1, 3, 20), -math.inf)
    output, score, index = fused_cpu.forward(query, key, torch.ones_like(key), 3)
    assert torch.equal(score, torch.full((1, 1, 3, 20), -math.inf))
    assert torch.equal(output[:, :, 0], score)
    assert index[0, 0].tolist() == [[max(y - 1, 0) * 20 + max(x - 1, 0) for x in range(20)] for y in range(3)]


@needs_compiler
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


@needs_compiler
def test_bfloat16_is_computed_in_float32_and_rounded_once() -> None:
    inputs = [tensor.bfloat16() for tensor in real_numbers(1, 2, 20, 6, 9)]
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


@needs_compiler
def test_layout_of_the_inputs_does_not_matter() -> None:
    tensors = real_numbers(2, 3, 6, 7, 19)
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


@needs_compiler
def test_a_gradient_that_is_one_number_everywhere_is_read_as_such() -> None:
    query, key, value, _ = real_numbers(1, 2, 4, 5, 6)
    _, score, index = fused_cpu.forward(query, key, value, 3)
    expanded = fused_cpu.backward(torch.ones(1, 1, 1, 1, 1).expand(key.shape), query, key, value, score, index, 3)
    whole = fused_cpu.backward(torch.ones(key.shape), query, key, value, score, index, 3)
    for one, other in zip(expanded, whole, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_with_frames_folded_into_channels_is_a_channels_last_view(dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in whole_numbers(2, 3, 4, 5, 6))
    output, _, _ = fused_cpu.forward(query, key, value, 3)
    folded = output.flatten(1, 2)
    assert folded.data_ptr() == output.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last)


@needs_compiler
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


@needs_compiler
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


@needs_compiler
def test_an_empty_batch_has_an_empty_output() -> None:
    query, key, value, weights = (tensor[:0] for tensor in real_numbers(1, 2, 4, 5, 6))
    output, score, index = fused_cpu.forward(query, key, value, 3)
    assert output.shape == key.shape
    grad_query, _, _ = fused_cpu.backward(weights, query, key, value, score, index, 3)
    assert grad_query is not None
    assert grad_query.shape == query.shape


@pytest.mark.parametrize(
    ("compiler", "reason"), [("", "no C compiler"), ("false", "false failed: exit 1"), ("no-such-cc", "no-such-cc")]
)
def test_without_a_working_compiler_it_is_unavailable_and_says_why_once(
    compiler: str, reason: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("CC", compiler)
    if not compiler:
        monkeypatch.setenv("PATH", str(fresh))
    with pytest.warns(RuntimeWarning, match=reason):
        assert not fused_cpu.available()
    assert not fused_cpu.available()
    assert not recwarn.list
    assert not list(fresh.rglob("*.so"))


@needs_compiler
def test_without_a_cache_folder_it_compiles_for_the_process_alone(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    assert fused_cpu.available()
    query, key, value = whole_numbers(1, 1, 2, 3, 4)
    _, _, index = fused_cpu.forward(query, key, value, 3)
    assert torch.equal(index, definition(query, key, 3)[1])


@needs_compiler
def test_a_broken_library_in_the_cache_is_compiled_anew(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert fused_cpu.available()
    (library,) = (fresh / "mana_dist").iterdir()
    other = tmp_path_factory.mktemp("other")
    (other / "mana_dist").mkdir()
    (other / "mana_dist" / library.name).write_bytes(b"half a library")
    monkeypatch.setenv("XDG_CACHE_HOME", str(other))
    fused_cpu._library.cache_clear()
    assert fused_cpu.available()
    assert (other / "mana_dist" / library.name).stat().st_size == library.stat().st_size


@needs_compiler
def test_processes_that_compile_at_once_leave_one_whole_library(fresh: Path) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)

    def build() -> None:
        together.wait(timeout=60)
        fused_cpu._build()

    processes = [context.Process(target=build) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    (library,) = (fresh / "mana_dist").iterdir()
    assert library.suffix == ".so"
    assert fused_cpu.available()
