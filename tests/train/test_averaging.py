"""A stage whose learning rate takes a course and whose weights are averaged: DeepSpeed engines against plain torch."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist

from mana_dist.config import RunConfig
from mana_dist.model.mana import initial_weights
from mana_dist.train import averaging
from mana_dist.train.schedule import Stage
from tests.train.forked import run_workers
from tests.train.test_engine import (
    MODEL,
    SETTINGS,
    STEPS,
    ZERO,
    State,
    assert_same_training,
    begun_average,
    engine_loop,
    in_two_parts,
    join,
    oracle,
)

COURSE = Stage(1, 0, STEPS, 1e-3, "cosine", warmup=2)
RATES = (5e-4, 1e-3, 5.1e-4, 2e-5)  # its steps'
EMA = 0.28
KEPT = (2 / 11, 3 / 12, 0.28, 0.28)  # shares of the average that its steps keep: (1 + n) / (10 + n), at most EMA
KEYS = [(run.zero_stage, run.precision) for run in SETTINGS]


class Trained(NamedTuple):
    """By ZeRO stage and precision what two workers have found; by number of workers and ZeRO stage what others have."""

    courses: dict[tuple[int, str], tuple[State, State, State]]
    worlds: dict[tuple[int, int], State]


def worker(rank: int, world_size: int, folder: str) -> None:
    join(rank, world_size, folder)
    courses, worlds = {}, {}
    if world_size == 2:
        for run in SETTINGS:
            courses[run.zero_stage, run.precision] = in_two_parts(replace(run, ema=EMA), COURSE)
    else:
        start = initial_weights(MODEL, 0)
        slow = replace(COURSE, lr=1e-4)  # the paper's rate: a higher one makes more of rounding
        for zero in ZERO:
            run = RunConfig(zero_stage=zero, precision="fp32", ema=EMA)
            worlds[world_size, zero] = engine_loop(run, slow, start, {}, 0, STEPS, begun_average(start))
    if rank == 0:
        torch.save((courses, worlds), f"{folder}/results-{world_size}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder: Path = tmp_path_factory.mktemp("averaging")
    found = Trained({}, {})
    for world_size in (1, 2, 3):
        run_workers(worker, world_size, world_size, str(folder))
        courses, worlds = torch.load(folder / f"results-{world_size}.pt", weights_only=True)
        found.courses.update(courses)
        found.worlds.update(worlds)
    return found


@pytest.mark.parametrize("zero", ZERO)
def test_the_rate_takes_its_course(trained: Trained, zero: int) -> None:
    assert_same_training(trained.courses[zero, "fp32"][0], oracle(1, rates=RATES))


@pytest.mark.parametrize(("zero", "precision"), KEYS)
def test_the_average_follows_the_weights(trained: Trained, zero: int, precision: str) -> None:
    """All of them, frozen ones too, from the average before the stage on; by hand, and without ZeRO in fp32."""
    weights, _, _, _, average = trained.courses[zero, precision][0]
    path = [oracle(1, steps=steps, rates=RATES)[0] for steps in range(1, STEPS + 1)]
    start = initial_weights(MODEL, 0)
    assert average.keys() == start.keys()
    for name, before in begun_average(start).items():
        assert average[name].dtype == torch.float32
        expected = before.double()
        for share, after in zip(KEPT, path, strict=True):
            expected = share * expected + (1 - share) * after[name].double()
        frozen = not COURSE.trains(name)
        tolerance = 1e-6 if frozen else 1e-4 if precision == "fp32" else 4e-3
        torch.testing.assert_close(average[name].double(), expected, rtol=0, atol=tolerance)
        assert torch.equal(weights[name], start[name]) == frozen


@pytest.mark.parametrize(("zero", "precision"), KEYS)
def test_with_course_and_average_a_resumed_stage_is_the_same_to_the_bit(
    trained: Trained, zero: int, precision: str
) -> None:
    whole, before, after = trained.courses[zero, precision]
    assert before[2] + after[2] == whole[2]
    for kind, resumed in ((whole[0], after[0]), (whole[1], after[1]), (whole[4], after[4])):
        assert kind
        assert all(torch.equal(resumed[name], tensor) for name, tensor in kind.items())


@pytest.mark.parametrize("zero", ZERO)
def test_one_and_three_workers_have_the_same_weights_and_average(trained: Trained, zero: int) -> None:
    one, three = trained.worlds[1, zero], trained.worlds[3, zero]
    for found, expected in ((three[0], one[0]), (three[4], one[4])):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_first_steps_of_a_run_forget_faster() -> None:
    assert [averaging.kept(0.998, steps) for steps in (1, 2, 90)] == [2 / 11, 3 / 12, 91 / 100]
    assert averaging.kept(0.998, 5000) == 0.998
