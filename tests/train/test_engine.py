"""DeepSpeed engines against plain torch loops, over ZeRO stages, two unequal workers and a change of world size,
gradient accumulation and clipping."""

import contextlib
import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mana_dist.config import RunConfig
from mana_dist.data.feed import Batch
from mana_dist.data.order import slots_of
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.mana import initial_weights
from mana_dist.train.engine import StageEngine, micro_batches
from mana_dist.train.objective import StageObjective
from mana_dist.train.schedule import ADAM_BETAS, Stage
from tests.train.forked import run_workers

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=5)
BATCH, STEPS = 3, 4
CLIP = 0.02  # below every norm of these steps
State = tuple[dict[str, Tensor], dict[str, Tensor], list[float], list[float], dict[str, Tensor]]
Results = dict[tuple[int, str, int], tuple[State, State, State]]
Clipped = dict[tuple[int, str, int], State]
Gradients = dict[str, Tensor]
PASSES = 16  # of one sample each, over all workers; a power of two, so that no scaling rounds


class Trained(NamedTuple):
    """What two workers have found, and what one has."""

    results: Results
    clipped: Clipped
    accumulated: dict[tuple[int, int], tuple[Gradients, float]]
    carried: dict[tuple[int, int], tuple[dict[str, Tensor], dict[str, Tensor]]]
    said: str  # by the one


def global_batch(step: int, size: int = BATCH) -> Batch:
    generator = torch.Generator().manual_seed(step)
    lr = torch.randint(0, 256, (size, 3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(lr, torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator))


def stage(number: int) -> Stage:
    return Stage(number, 0, STEPS, 1e-3)


def plain_loop(number: int, clip: float = 0.0, steps: int = STEPS, rates: Sequence[float] = (1e-3,) * STEPS) -> State:
    """The oracle: one process, torch alone."""
    model = Mana(MODEL)
    model.load_state_dict(initial_weights(MODEL, 0))
    objective = StageObjective(model, stage(number))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3, betas=ADAM_BETAS)
    losses, norms = [], []
    for step in range(steps):
        loss = objective(*global_batch(step))
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), clip or float("inf")).item())
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.step()
        losses.append(loss.item())
    moments = {
        f"{moment}.{name}": optimizer.state[p][moment]
        for name, p in trained.items()
        for moment in ("exp_avg", "exp_avg_sq")
    }
    return model.state_dict(), moments, losses, norms, {}


def engine_loop(
    run: RunConfig,
    planned: Stage,
    weights: dict[str, Tensor],
    moments: dict[str, Tensor],
    first: int,
    last: int,
    average: dict[str, Tensor] | None = None,
) -> State:
    """This worker's part in training steps [first, last)."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    mine = slots_of(rank, world_size, BATCH)
    losses, norms = [], []
    with StageEngine(MODEL, run, planned, weights, moments, first, torch.device("cpu"), average) as engine:
        for step in range(first, last):
            whole = global_batch(step)
            part = engine.step(Batch(whole.lr[mine.start : mine.stop], whole.hr[mine.start : mine.stop]), BATCH)
            dist.all_reduce(part)
            losses.append(part.item())
            norms.append(engine.gradient_norm.item())
        return engine.weights(), engine.moments(), losses, norms, engine.average()


def summed_passes(number: int, samples: int, *, each_use: bool = False) -> Gradients:
    """The oracle of accumulation: bf16 passes over ``samples`` each, their gradients summed in fp32 by plain torch.

    ``each_use``: where a parameter is used twice in a pass, its two gradients are summed in fp32 too.
    """
    model = Mana(MODEL)
    model.load_state_dict(initial_weights(MODEL, 0))
    objective = StageObjective(model.to(torch.bfloat16), stage(number))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    batch = global_batch(0, PASSES)
    sums = {name: torch.zeros(p.shape) for name, p in trained.items()}
    for first in range(0, PASSES, samples):
        for parameter in trained.values():
            parameter.grad_dtype, parameter.grad = (torch.float32 if each_use else torch.bfloat16), None
        loss = objective(batch.lr[first : first + samples], batch.hr[first : first + samples])
        (loss * (samples / PASSES)).backward()
        for name, parameter in trained.items():
            assert parameter.grad is not None
            sums[name] += parameter.grad
    return sums


oracle, summed = functools.cache(plain_loop), functools.cache(summed_passes)  # many tests compare with the same


def accumulated_gradients(run: RunConfig, number: int) -> tuple[Gradients, float]:
    """The same sum as the first step's Adam has seen it, and its norm."""
    mine, batch = slots_of(dist.get_rank(), dist.get_world_size(), PASSES), global_batch(0, PASSES)
    part = Batch(batch.lr[mine.start : mine.stop], batch.hr[mine.start : mine.stop])
    with StageEngine(MODEL, run, stage(number), initial_weights(MODEL, 0), {}, 0, torch.device("cpu")) as engine:
        engine.step(part, PASSES)
        gradients = {
            name.removeprefix("exp_avg."): moment / (1 - ADAM_BETAS[0])
            for name, moment in engine.moments().items()
            if name.startswith("exp_avg.")
        }
        return gradients, engine.gradient_norm.item()


def carried(run: RunConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A plain loop's weights and moments, and what an engine gives back of them before any step."""
    weights, moments, *_ = plain_loop(3, steps=2)
    with StageEngine(MODEL, run, stage(3), weights, moments, 2, torch.device("cpu")) as engine:
        return {**weights, **moments}, {**engine.weights(), **engine.moments()}


ZERO: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)
SETTINGS = [
    *[RunConfig(zero_stage=zero, precision="fp32") for zero in ZERO],
    *[RunConfig(zero_stage=zero, precision="bf16") for zero in ZERO],
]
# One sample to a pass: of the three in a batch, one worker has two and the other one, so that its second pass is empty.
CLIPPED = [
    *[
        (RunConfig(zero_stage=zero, precision="fp32", micro_batch=1, clip_gradients=CLIP), n)
        for zero in ZERO
        for n in (1, 2)
    ],
    *[(RunConfig(zero_stage=zero, precision="bf16", micro_batch=1, clip_gradients=CLIP), 1) for zero in ZERO],
]


def join(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = f"file://{folder}/store-{world_size}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)


def in_two_parts(run: RunConfig, planned: Stage) -> tuple[State, State, State]:
    """The whole of a stage, its first two steps, and the others resumed from there."""
    start = initial_weights(MODEL, 0)
    average = begun_average(start) if run.ema else None
    part = engine_loop(run, planned, start, {}, 0, 2, average)
    resumed = engine_loop(run, planned, part[0], part[1], 2, STEPS, part[4])
    return engine_loop(run, planned, start, {}, 0, STEPS, average), part, resumed


def begun_average(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """An average from before the stage, unlike the weights."""
    return {name: 2 * tensor - 1 for name, tensor in weights.items()}


def worker(rank: int, world_size: int, folder: str) -> None:
    join(rank, world_size, folder)
    start = initial_weights(MODEL, 0)
    results = {}
    for run in SETTINGS:
        for number in (1, 2, 3):
            results[run.zero_stage, run.precision, number] = in_two_parts(run, stage(number))
    clipped = {
        (run.zero_stage, run.precision, number): engine_loop(run, stage(number), start, {}, 0, STEPS)
        for run, number in CLIPPED
    }
    accumulated = {
        (zero, number): accumulated_gradients(RunConfig(zero_stage=zero, precision="bf16", micro_batch=1), number)
        for zero in ZERO
        for number in (1, 2)
    }
    back = {(zero, world_size): carried(RunConfig(zero_stage=zero, precision="bf16")) for zero in ZERO}
    if rank == 0:
        torch.save((results, clipped, accumulated, back), f"{folder}/results.pt")
    dist.destroy_process_group()


def single_worker(rank: int, folder: str) -> None:
    join(rank, 1, folder)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        back = {(zero, 1): carried(RunConfig(zero_stage=zero, precision="bf16")) for zero in ZERO}
    torch.save((back, said.getvalue()), f"{folder}/single.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """All settings, run by two workers with one and two samples of each batch."""
    folder: Path = tmp_path_factory.mktemp("engine")
    run_workers(worker, 2, 2, str(folder))
    run_workers(single_worker, 1, str(folder))
    results, clipped, accumulated, carried_by_two = torch.load(folder / "results.pt", weights_only=True)
    carried_by_one, said = torch.load(folder / "single.pt", weights_only=True)
    return Trained(results, clipped, accumulated, carried_by_two | carried_by_one, said)


@pytest.fixture(scope="module")
def results(trained: Trained) -> Results:
    """Without accumulation or clipping: the whole, its first two steps, and the others after resuming."""
    return trained.results


@pytest.fixture(scope="module")
def clipped(trained: Trained) -> Clipped:
    """With both."""
    return trained.clipped


def assert_same_training(state: State, expected: State) -> None:
    weights, moments, losses, norms, _ = state
    assert losses == pytest.approx(expected[2], rel=1e-5)
    assert norms == pytest.approx(expected[3], rel=1e-3)
    assert moments.keys() == expected[1].keys()
    for name, moment in expected[1].items():
        torch.testing.assert_close(moments[name], moment, rtol=1e-3, atol=1e-6)
    for name, weight in expected[0].items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("zero", ZERO)
def test_two_workers_equal_a_plain_loop(results: Results, zero: int, number: int) -> None:
    assert_same_training(results[zero, "fp32", number][0], oracle(number))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("zero", ZERO)
def test_accumulation_and_clipping_equal_a_plain_loop(clipped: Clipped, zero: int, number: int) -> None:
    expected = oracle(number, CLIP)
    assert min(expected[3]) > CLIP  # so all steps are clipped
    assert_same_training(clipped[zero, "fp32", number], expected)


@pytest.mark.parametrize("zero", ZERO)
def test_bf16_accumulates_and_clips_too(clipped: Clipped, zero: int) -> None:
    _, moments, losses, norms, _ = clipped[zero, "bf16", 1]
    _, expected_moments, expected_losses, expected_norms, _ = oracle(1, CLIP)
    assert losses == pytest.approx(expected_losses, rel=3e-2)
    assert norms == pytest.approx(expected_norms, rel=0.1)
    # The second moment grows with the square of what was left of the gradients after clipping.
    size, expected_size = (
        sum(m.sum().item() for n, m in each.items() if "_sq." in n) for each in (moments, expected_moments)
    )
    assert size == pytest.approx(expected_size, rel=0.1)


def distance(found: Gradients, expected: Gradients) -> float:
    """The L2 norm of the difference over the expected one's."""
    assert found.keys() == expected.keys()
    apart = sum((found[name] - tensor).square().sum() for name, tensor in expected.items())
    return float((apart / sum(tensor.square().sum() for tensor in expected.values())) ** 0.5)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("zero", ZERO)
def test_bf16_passes_of_all_workers_are_summed_in_fp32(trained: Trained, zero: int, number: int) -> None:
    """Two workers, eight passes each. Summed in bf16 they were 2e-3 (stage 0) to 4e-3 (stage 3) apart."""
    gradients, norm = trained.accumulated[zero, number]
    expected = summed(number, 1, each_use=zero == 0)
    assert distance(gradients, expected) < 1e-6
    assert norm == pytest.approx(float(sum(g.square().sum() for g in expected.values())) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("zero", ZERO)
def test_sixteen_bf16_passes_are_as_exact_as_one(trained: Trained, zero: int, number: int) -> None:
    """Both against a pass in fp64: splitting a batch adds no error to what a bf16 pass has anyway."""
    model = Mana(MODEL)
    model.load_state_dict(initial_weights(MODEL, 0))
    objective = StageObjective(model.double(), stage(number))
    objective(*global_batch(0, PASSES)).backward()
    exact = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    one_pass = distance(summed(number, PASSES), exact)
    assert distance(trained.accumulated[zero, number][0], exact) < 1.1 * one_pass


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("zero", ZERO)
def test_a_state_crosses_every_bf16_engine_unchanged(trained: Trained, zero: int, world_size: int) -> None:
    """To the bit, so that ZeRO stage and number of workers may change at every checkpoint."""
    given, back = trained.carried[zero, world_size]
    assert back.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(back[name], tensor), name


def test_engines_print_nothing(trained: Trained) -> None:
    """DeepSpeed's bf16 optimizer would print the memory in use, and collect garbage for a second before."""
    assert trained.said == ""


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("zero", "precision"), [(run.zero_stage, run.precision) for run in SETTINGS])
def test_resuming_in_the_middle_of_a_stage_is_exact(results: Results, zero: int, precision: str, number: int) -> None:
    whole, before, after = results[zero, precision, number]
    assert before[2] + after[2] == whole[2]
    assert before[3] + after[3] == whole[3]
    for kind, resumed in ((whole[0], after[0]), (whole[1], after[1])):
        for name, tensor in kind.items():
            assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("zero", "precision"), [(run.zero_stage, run.precision) for run in SETTINGS])
def test_frozen_tensors_stay_bit_equal_under_deepspeed(
    results: Results, zero: int, precision: str, number: int
) -> None:
    (weights, moments, *_), _, _ = results[zero, precision, number]
    start = initial_weights(MODEL, 0)
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32
        if not stage(number).trains(name):
            assert torch.equal(tensor, start[name]), name
            assert f"exp_avg.{name}" not in moments


@pytest.mark.parametrize("number", [1, 2, 3])
def test_bf16_follows_fp32(results: Results, number: int) -> None:
    assert results[1, "bf16", number][0][2] == pytest.approx(results[1, "fp32", number][0][2], rel=3e-2)


def test_a_seed_fixes_the_start_and_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = initial_weights(MODEL, 1), initial_weights(MODEL, 1), initial_weights(MODEL, 2)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.weight"], other["stem.weight"])


def test_the_start_of_a_seed_is_fixed() -> None:
    """A golden value: torch promises its stream for no other version, and a run without a checkpoint starts anew."""
    start = initial_weights(MODEL, 0)
    expected = {
        "stem.weight": [-0.0014408393, 0.1032386199, -0.1583951116, -0.1416315287],
        "memory.bank": [-1.2727350, -1.4046518, -0.0909920, 0.1091664],
    }
    for name, values in expected.items():
        assert start[name].flatten()[:4].tolist() == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("batch_size", range(1, 12))
@pytest.mark.parametrize("most", range(5))
def test_passes_share_the_samples_and_are_equally_many_everywhere(batch_size: int, most: int) -> None:
    for world_size in range(1, batch_size + 1):
        counts = set()
        for rank in range(world_size):
            share = len(slots_of(rank, world_size, batch_size))
            parts = micro_batches(share, batch_size, world_size, most)
            assert [row for part in parts for row in part] == list(range(share))
            assert max(map(len, parts)) <= (most or share)
            counts.add(len(parts))
        assert len(counts) == 1
