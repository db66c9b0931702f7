"""DeepSpeed engines against a plain torch loop, over ZeRO stages, two unequal workers and a change of world size,
gradient accumulation and clipping."""

import os
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from mana_dist.config import RunConfig
from mana_dist.data.feed import Batch
from mana_dist.data.order import slots_of
from mana_dist.model import Mana, ModelConfig
from mana_dist.train.engine import StageEngine, initial_weights, micro_batches
from mana_dist.train.schedule import ADAM_BETAS, Stage, StageObjective

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=5)
BATCH, STEPS = 3, 4
CLIP = 0.02  # below every norm of these steps
State = tuple[dict[str, Tensor], dict[str, Tensor], list[float], list[float]]
Results = dict[tuple[int, str, int], tuple[State, State, State]]
Clipped = dict[tuple[int, str, int], State]


def global_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    lr = torch.randint(0, 256, (BATCH, 3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(lr, torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator))


def stage(number: int) -> Stage:
    return Stage(number, 0, STEPS, 1e-3)


def plain_loop(number: int, clip: float = 0.0, steps: int = STEPS) -> State:
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
        optimizer.step()
        losses.append(loss.item())
    moments = {
        f"{moment}.{name}": optimizer.state[p][moment]
        for name, p in trained.items()
        for moment in ("exp_avg", "exp_avg_sq")
    }
    return model.state_dict(), moments, losses, norms


def engine_loop(
    run: RunConfig, number: int, weights: dict[str, Tensor], moments: dict[str, Tensor], first: int, last: int
) -> State:
    """This worker's part in training steps [first, last)."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    mine = slots_of(rank, world_size, BATCH)
    losses, norms = [], []
    with StageEngine(MODEL, run, stage(number), weights, moments, first, torch.device("cpu")) as engine:
        for step in range(first, last):
            whole = global_batch(step)
            part = engine.step(
                Batch(whole.lr[mine.start : mine.stop], whole.hr[mine.start : mine.stop]), len(mine) / BATCH
            )
            dist.all_reduce(part)
            losses.append(part.item())
            norms.append(engine.gradient_norm.item())
        return engine.weights(), engine.moments(), losses, norms


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


def worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    start = initial_weights(MODEL, 0)
    results = {}
    for run in SETTINGS:
        for number in (1, 2, 3):
            whole = engine_loop(run, number, start, {}, 0, STEPS)
            part = engine_loop(run, number, start, {}, 0, 2)
            resumed = engine_loop(run, number, part[0], part[1], 2, STEPS)
            results[run.zero_stage, run.precision, number] = (whole, part, resumed)
    clipped = {
        (run.zero_stage, run.precision, number): engine_loop(run, number, start, {}, 0, STEPS)
        for run, number in CLIPPED
    }
    if rank == 0:
        torch.save((results, clipped), f"{folder}/results.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Clipped]:
    """All settings, run by two workers with one and two samples of each batch."""
    folder: Path = tmp_path_factory.mktemp("engine")
    spawn(worker, args=(2, str(folder)), nprocs=2)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.fixture(scope="module")
def results(trained: tuple[Results, Clipped]) -> Results:
    """Without accumulation or clipping: the whole, its first two steps, and the others after resuming."""
    return trained[0]


@pytest.fixture(scope="module")
def clipped(trained: tuple[Results, Clipped]) -> Clipped:
    """With both."""
    return trained[1]


def assert_same_training(state: State, expected: State) -> None:
    weights, moments, losses, norms = state
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
    assert_same_training(results[zero, "fp32", number][0], plain_loop(number))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("zero", ZERO)
def test_accumulation_and_clipping_equal_a_plain_loop(clipped: Clipped, zero: int, number: int) -> None:
    expected = plain_loop(number, CLIP)
    assert min(expected[3]) > CLIP  # so all steps are clipped
    assert_same_training(clipped[zero, "fp32", number], expected)


@pytest.mark.parametrize("zero", ZERO)
def test_bf16_accumulates_and_clips_too(clipped: Clipped, zero: int) -> None:
    _, moments, losses, norms = clipped[zero, "bf16", 1]
    _, expected_moments, expected_losses, expected_norms = plain_loop(1, CLIP)
    assert losses == pytest.approx(expected_losses, rel=3e-2)
    assert norms == pytest.approx(expected_norms, rel=0.1)
    # The second moment grows with the square of what was left of the gradients after clipping.
    size, expected_size = (
        sum(m.sum().item() for n, m in each.items() if "_sq." in n) for each in (moments, expected_moments)
    )
    assert size == pytest.approx(expected_size, rel=0.1)


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
