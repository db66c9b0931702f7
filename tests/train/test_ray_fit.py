"""Failures count from the newest checkpoint on, and what counts is what lies in the storage."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train import ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from mana_dist.config import Config, RunConfig
from mana_dist.errors import UserError
from mana_dist.storage.lease import Lease, hold
from mana_dist.train import ray_fit
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.elastic.interrupts import Interrupts


def config(folder: Path, max_failures: int = 1) -> Config:
    return Config(run=RunConfig(name="run", storage=str(folder), max_failures=max_failures))


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Lease]:
    with hold(str(tmp_path), "run", "wait") as lease:
        yield lease


def save(run: Config, step: int) -> None:
    Checkpoints(run).write(TrainState(step, {"weight": torch.ones(1)}, {"exp_avg.weight": torch.ones(1)}))


def damage(run: Config, step: int) -> None:
    Path(Checkpoints(run).folder(step), "model.safetensors").write_bytes(b"")


class Attempts:
    """Trainings that end one after the other; no event of theirs is ever heard."""

    def __init__(self, attempts: Iterator[Any]) -> None:
        self._attempts = attempts
        self.begun = 0

    def start(self) -> "Future[Any]":
        self.begun += 1
        done: Future[Any] = Future()
        outcome = next(self._attempts)
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)
        return done


def crashed() -> WorkerGroupError:
    return WorkerGroupError("a worker died", {0: RuntimeError("the node is gone")})


def test_a_crash_just_after_a_checkpoint_counts_it(tmp_path: Path, held: Lease) -> None:
    """Though nobody has heard of the checkpoint: the worker died before it told, or its event is on its way."""
    run = config(tmp_path)

    def attempts() -> Iterator[Any]:
        for step in (6, 12):
            save(run, step)
            yield crashed()
        yield "the end"

    trainings = Attempts(attempts())
    assert ray_fit._fit_with_restarts(run, trainings.start, held, Interrupts(), None) == "the end"  # type: ignore[arg-type]
    assert trainings.begun == 3


@pytest.mark.parametrize("max_failures", [0, 1])
def test_crashes_without_a_new_checkpoint_end_the_run(tmp_path: Path, held: Lease, max_failures: int) -> None:
    """So does one at the checkpoint that an earlier command has left; with none allowed, any."""
    run = config(tmp_path, max_failures)
    save(run, 6)

    def attempts() -> Iterator[Any]:
        if max_failures:
            save(run, 12)
            yield crashed()
        yield crashed()

    trainings = Attempts(attempts())
    with pytest.raises(UserError, match=rf"more often than run.max_failures \({max_failures}\).*the node is gone"):
        ray_fit._fit_with_restarts(run, trainings.start, held, Interrupts(), None)  # type: ignore[arg-type]
    assert trainings.begun == max_failures + 1


def test_a_damaged_checkpoint_does_not_hide_the_ones_written_after_it(tmp_path: Path, held: Lease) -> None:
    """Training goes on from the one before, so what it saves then has a lower step."""
    run = config(tmp_path)
    for step in (6, 18):
        save(run, step)
    damage(run, 18)

    def attempts() -> Iterator[Any]:
        save(run, 12)
        yield crashed()
        yield "the end"

    assert ray_fit._fit_with_restarts(run, Attempts(attempts()).start, held, Interrupts(), None) == "the end"  # type: ignore[arg-type]


def test_ray_train_starts_no_process_that_a_training_has_no_use_for() -> None:
    trainer = TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    own = {type(callback).__name__ for callback in trainer._create_default_callbacks()}
    assert own >= ray_fit._NEEDLESS_IN_PRIVATE  # as this version of Ray names them
    ray_fit._leave_out(trainer, ray_fit._NEEDLESS_IN_PRIVATE)
    left = {type(callback).__name__ for callback in trainer._create_default_callbacks()}
    assert left == own - ray_fit._NEEDLESS_IN_PRIVATE


def test_deepspeed_comes_without_mlflow_and_torchs_compiler_which_can_still_be_imported() -> None:
    program = (
        "import sys; from mana_dist.train.engine import _import_deepspeed; _import_deepspeed();"
        "import deepspeed.runtime.zero.muon.muon_optimizer;"  # by every engine with ZeRO
        "assert not {'mlflow', 'torch._inductor.compile_fx'} & set(sys.modules);"
        "import mlflow.version; assert 'deepspeed' in sys.modules;"
        "from deepspeed.runtime import compiler; assert compiler.compile.__module__ == compiler.__name__"
    )
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
