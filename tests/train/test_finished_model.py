"""The finished model: of the best checkpoint with ``run.keep_best``; of more steps where a finished run goes on."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mana_dist.config import Config, ScheduleConfig, StageConfig
from mana_dist.errors import UserError
from mana_dist.model.mana import initial_weights
from mana_dist.registry import model_folder
from mana_dist.train import ray_fit, run_record, run_training
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.schedule import stages
from tests.train import test_run_training
from tests.train.datasets import make_dataset

quick = test_run_training.config  # a run that is trained in no time


def planned(config: Config, *steps: int, **run: Any) -> Config:
    three = [StageConfig(steps=count, lr=1e-4) for count in steps]
    schedule = ScheduleConfig(stage1=three[0], stage2=three[1], stage3=three[2])
    return dataclasses.replace(config, schedule=schedule, run=dataclasses.replace(config.run, **run))


@pytest.fixture
def config(quick: Config) -> Config:
    return planned(quick, 6, 2, 4)


@pytest.fixture
def begun_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that the workers went on from; each step's weights are all of its number."""
    found: list[int] = []

    def fit(config: Config, *_: object) -> int:
        checkpoints = Checkpoints(config)
        state = checkpoints.newest().state
        first, last = state.step if state else 0, stages(config)[-1].stop
        found.append(first)
        for step in range(first + 2, last + 1, 2):
            start = initial_weights(config.model, 0)
            weights = {name: torch.full_like(tensor, float(step)) for name, tensor in start.items()}
            checkpoints.write(TrainState(step, weights, {f"exp_avg.{name}": start[name] for name in start}))
            if config.run.keep_best:
                checkpoints.note_validation(step, 30 - abs(step - 8))
        return last

    monkeypatch.setattr(ray_fit, "fit", fit)
    return found


def step_of(model: str) -> float:
    weights = model_folder.load(model)[0].state_dict()
    (value,) = {float(tensor.unique()) for tensor in weights.values()}
    return value


@pytest.mark.parametrize(("keep_best", "step"), [(None, 12), ("psnr", 8)])
def test_with_keep_best_it_is_the_best_one(
    config: Config, tmp_path: Path, begun_at: list[int], caplog: pytest.LogCaptureFixture, keep_best: Any, step: int
) -> None:
    caplog.set_level("INFO")
    make_dataset(str(tmp_path / "held-out"), 2)
    # The two models are compared on Ray, which is not here.
    mlflow = dataclasses.replace(config.mlflow, candidate="always")
    data = dataclasses.replace(config.data, validation_path=str(tmp_path / "held-out"))
    run = dataclasses.replace(config.run, keep_best=keep_best, keep_checkpoints=1)
    trained = run_training.train(dataclasses.replace(config, data=data, mlflow=mlflow, run=run))
    assert step_of(trained.model) == step
    line = "the finished model is that of step 8, whose psnr is the best: 30.0000"
    assert (line in caplog.messages) == (keep_best is not None)


def test_keep_best_needs_validations(config: Config) -> None:
    with pytest.raises(UserError, match=r"run\.keep_best psnr needs validations; give data\.validation_path too"):
        run_training.train(planned(config, 6, 2, 4, keep_best="psnr"))


def test_a_damaged_best_one_is_not_taken(config: Config, tmp_path: Path, begun_at: list[int]) -> None:
    from mana_dist.train.checkpoints import publishing

    best = planned(config, 6, 2, 4, keep_best="psnr", keep_checkpoints=1)
    ray_fit.fit(best, *[None] * 4)  # type: ignore[arg-type]
    file = tmp_path / "runs" / "one" / "checkpoint_00000008" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"five")
    publishing.publish(best, Checkpoints(best), lambda: None)
    assert step_of(run_record.model_folder_of(best)) == 12


def test_a_finished_run_goes_on_when_its_steps_are_raised(
    config: Config, begun_at: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = run_training.train(config)
    assert "finished at step" not in caplog.text
    more = run_training.train(planned(config, 6, 2, 10))
    line = "run one was finished at step 12; its steps were raised, so it goes on to step 18"
    assert caplog.messages.count(line) == 1
    assert begun_at == [0, 12]
    assert more.model == first.model
    assert step_of(more.model) == 18
    assert (first.registered, more.registered) == ("models:/mana-x4/1", "models:/mana-x4/2")
    again = run_training.train(planned(config, 6, 2, 10))
    assert begun_at == [0, 12]
    assert again.registered == more.registered


def test_a_stage_that_was_not_planned_may_follow(config: Config, begun_at: list[int]) -> None:
    run_training.train(planned(config, 6, 0, 0))
    run_training.train(planned(config, 6, 2, 4))
    assert begun_at == [0, 6]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((6, 2, 2), r"schedule\.stage3\.steps 4, now it is 2"),
        ((8, 2, 4), r"schedule\.stage1\.steps 6, now it is 8"),
        ((6, 4, 8), r"schedule\.stage2\.steps 2, now it is 4"),
        ((6, 6, 0), r"schedule\.stage2\.steps 2, now it is 6"),
    ],
)
def test_steps_that_were_made_stay_what_they_were(
    config: Config, begun_at: list[int], steps: tuple[int, int, int], message: str
) -> None:
    run_training.train(config)
    with pytest.raises(UserError, match=message):
        run_training.train(planned(config, *steps))
    assert begun_at == [0]


def test_a_run_that_is_not_finished_keeps_its_steps(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_fit, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run_training.train(config)
    with pytest.raises(UserError, match=r"schedule\.stage3\.steps 4, now it is 10"):
        run_training.train(planned(config, 6, 2, 10))
