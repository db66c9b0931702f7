"""Trainings in processes of their own, to be killed, stopped and resumed."""

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from mlflow import MlflowClient

from tests.train.datasets import make_dataset

TINY = [
    *["--model.channels", "8", "--model.encoder_blocks", "1", "--model.decoder_blocks", "1", "--model.window", "3"],
    *["--model.memory_slots", "4", "--data.batch_size", "5", "--data.crop", "12", "--run.precision", "fp32"],
    *["--schedule.stage1.steps", "20", "--schedule.stage2.steps", "8", "--schedule.stage3.steps", "12"],
    *["--schedule.stage1.lr", "1e-3", "--schedule.stage2.lr", "1e-2"],
    *["--run.workers", "2", "--run.log_every", "4", "--run.checkpoint_every", "6"],
    *["--run.validate_every", "20", "--run.validate_samples", "3"],
]
STEPS = 40
PATIENCE = 900.0  # seconds; a machine where two suites run takes minutes to start one training
STARTED = "worker(s) on "  # part of the line that tells of every start
DATA = ["--data.path", "samples", "--data.validation_path", "held-out"]


def make_workplace(folder: Path, scale: int = 4) -> Path:
    """A working folder with data, as a user has it."""
    make_dataset(str(folder / "samples"), 22, scale=scale)
    make_dataset(str(folder / "held-out"), 5, scale=scale)
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mana_dist.train", *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Training:
    """A running training. Use as a context manager: leaving it kills what is left.

    Args:
        folder: working folder.
        arguments: of the command.
        extra: environment variables.
        within: command that runs another one somewhere, in the same working folder.
        program: what to run instead of a training, as Python takes it.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        extra: dict[str, str] | None = None,
        within: Sequence[str] = (),
        program: Sequence[str] = ("-m", "mana_dist.train"),
    ) -> None:
        self._mark = f"MANA_TEST_MARK={uuid.uuid4().hex}"  # every process of the run inherits it
        name, value = self._mark.split("=")
        self._log = folder / f"{value}.log"
        with self._log.open("w") as stream:
            self.process = subprocess.Popen(
                [*within, sys.executable, *program, *arguments],
                cwd=folder,
                env={**environment(), **(extra or {}), name: value},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def step(self) -> int:
        """The last one told since the workers started last; 0 before that."""
        return max((int(step) for step in re.findall(r"step +(\d+)/", self.output.split(STARTED)[-1])), default=0)

    def wait_for(self, text: str, seconds: float = PATIENCE, count: int = 1) -> None:
        """Until the output holds ``text`` ``count`` times."""
        self._wait(lambda: self.output.count(text) >= count, f"{text!r}", seconds)

    def wait_for_step(self, step: int, seconds: float = PATIENCE) -> None:
        """Until a step of at least ``step`` was told."""
        self._wait(lambda: self.step >= step, f"step {step}", seconds)

    def _wait(self, done, what: str, seconds: float) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, f"ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {what} in {seconds} s:\n{self.output}"
            time.sleep(0.02)

    def finish(self, seconds: float = PATIENCE) -> int:
        """The exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"did not end in {seconds} s:\n{self.output}") from error

    def workers(self) -> list[int]:
        """The training workers' process ids."""
        return [number for number, title in self.processes().items() if title.startswith("ray::RayTrainWorker")]

    def processes(self) -> dict[int, str]:
        """All running processes of the training: id to command line."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = title
            except OSError:
                continue
        return found


def history(folder: Path, run_name: str, key: str = "train/loss", status: str = "FINISHED") -> dict[int, float]:
    """What MLflow holds of a metric, by step; no step may be there twice."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mana")
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run_name}'")
    assert run.info.status == status
    points = client.get_metric_history(run.info.run_id, key)
    assert len({point.step for point in points}) == len(points)
    return {point.step: point.value for point in points}


def weights(folder: Path, run_name: str) -> bytes:
    """The finished model's file."""
    return (folder / "runs" / run_name / "model" / "model.safetensors").read_bytes()
