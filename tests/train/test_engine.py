"""DeepSpeed engines against a plain torch loop, over ZeRO stages, two unequal workers and a change of world size."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from mana_dist.config import RunConfig
from mana_dist.data.feed import Batch
from mana_dist.data.order import slots_of
from mana_dist.model import Mana, ModelConfig
from mana_dist.train.engine import StageEngine, initial_weights
from mana_dist.train.schedule import ADAM_BETAS, Stage, StageObjective

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=5)
BATCH, STEPS = 3, 4
State = tuple[dict[str, Tensor], dict[str, Tensor], list[float]]


def global_batch(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    lr = torch.randint(0, 256, (BATCH, 3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(lr, torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator))


def stage(number: int) -> Stage:
    return Stage(number, 0, STEPS, 1e-3)


def plain_loop(number: int, steps: int = STEPS) -> State:
    """The oracle: one process, torch alone."""
    model = Mana(MODEL)
    model.load_state_dict(initial_weights(MODEL, 0))
    objective = StageObjective(model, stage(number))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3, betas=ADAM_BETAS)
    losses = []
    for step in range(steps):
        loss = objective(*global_batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    moments = {
        f"{moment}.{name}": optimizer.state[p][moment]
        for name, p in trained.items()
        for moment in ("exp_avg", "exp_avg_sq")
    }
    return model.state_dict(), moments, losses


def engine_loop(
    run: RunConfig, number: int, weights: dict[str, Tensor], moments: dict[str, Tensor], first: int, last: int
) -> State:
    """This worker's part in training steps [first, last)."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    mine = slots_of(rank, world_size, BATCH)
    losses = []
    with StageEngine(MODEL, run, stage(number), weights, moments, first, torch.device("cpu")) as engine:
        for step in range(first, last):
            whole = global_batch(step)
            part = engine.step(
                Batch(whole.lr[mine.start : mine.stop], whole.hr[mine.start : mine.stop]), len(mine) / BATCH
            )
            dist.all_reduce(part)
            losses.append(part.item())
        return engine.weights(), engine.moments(), losses


SETTINGS = [
    *[RunConfig(zero_stage=zero, precision="fp32") for zero in (0, 1, 2, 3)],
    *[RunConfig(zero_stage=zero, precision="bf16") for zero in (0, 1, 2, 3)],
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
            weights, moments, before = engine_loop(run, number, start, {}, 0, 2)
            resumed = engine_loop(run, number, weights, moments, 2, STEPS)
            results[run.zero_stage, run.precision, number] = (whole, (weights, moments, before), resumed)
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str, int], tuple[State, State, State]]:
    """All settings, run by two workers with one and two samples of each batch."""
    folder: Path = tmp_path_factory.mktemp("engine")
    spawn(worker, args=(2, str(folder)), nprocs=2)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_two_workers_equal_a_plain_loop(results, zero: int, number: int) -> None:  # type: ignore[no-untyped-def]
    (weights, moments, losses), _, _ = results[zero, "fp32", number]
    expected_weights, expected_moments, expected_losses = plain_loop(number)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert moments.keys() == expected_moments.keys()
    for name, expected in expected_moments.items():
        torch.testing.assert_close(moments[name], expected, rtol=1e-3, atol=1e-6)
    for name, expected in expected_weights.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("zero", "precision"), [(run.zero_stage, run.precision) for run in SETTINGS])
def test_resuming_in_the_middle_of_a_stage_is_exact(results, zero: int, precision: str, number: int) -> None:  # type: ignore[no-untyped-def]
    whole, before, after = results[zero, precision, number]
    assert before[2] + after[2] == whole[2]
    for kind in (0, 1):
        for name, tensor in whole[kind].items():
            assert torch.equal(after[kind][name], tensor), name


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("zero", "precision"), [(run.zero_stage, run.precision) for run in SETTINGS])
def test_frozen_tensors_stay_bit_equal_under_deepspeed(results, zero: int, precision: str, number: int) -> None:  # type: ignore[no-untyped-def]
    (weights, moments, _), _, _ = results[zero, precision, number]
    start = initial_weights(MODEL, 0)
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32
        if not stage(number).trains(name):
            assert torch.equal(tensor, start[name]), name
            assert f"exp_avg.{name}" not in moments


@pytest.mark.parametrize("number", [1, 2, 3])
def test_bf16_follows_fp32(results, number: int) -> None:  # type: ignore[no-untyped-def]
    assert results[1, "bf16", number][0][2] == pytest.approx(results[1, "fp32", number][0][2], rel=3e-2)


def test_a_seed_fixes_the_start_and_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = initial_weights(MODEL, 1), initial_weights(MODEL, 1), initial_weights(MODEL, 2)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.weight"], other["stem.weight"])
