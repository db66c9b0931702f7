"""Trainings that are stopped, killed or broken, and go on: see also ``test_exactness`` and ``test_elastic``."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from mana_dist.train.checkpoints import checkpoint
from tests.train.trainings import DATA, STARTED, STEPS, TINY, Training, history, make_workplace, train

# As long as needed: it is ended from outside.
ENDLESS = ["--schedule.stage1.steps", "5000", "--run.log_every", "1"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("faults"))


def checkpoint_steps(workplace: Path, name: str) -> list[int]:
    return sorted(int(path.name[11:]) for path in (workplace / "runs" / name).glob("checkpoint_*"))


@pytest.mark.cluster
def test_sigterm_saves_at_once_and_the_run_goes_on_from_there(workplace: Path) -> None:
    arguments = [*TINY, *DATA, *ENDLESS, "--run.name", "stopped", "--run.checkpoint_every", "4000"]
    with Training(workplace, *arguments) as training:
        training.wait_for_step(3)
        before = time.monotonic()
        os.killpg(training.process.pid, signal.SIGTERM)  # as `timeout` and systemd do
        assert training.finish(40) == 128 + signal.SIGTERM, training.output
        assert time.monotonic() - before < 30  # the grace that Kubernetes gives
        output = training.output
    assert "the same command with --run.name stopped goes on with it" in output
    assert "Traceback" not in output
    (step,) = checkpoint_steps(workplace, "stopped")
    assert f"stopped after step {step} (SIGTERM)" in output
    assert sorted(history(workplace, "stopped", status="KILLED")) == list(range(1, step + 1))
    with Training(workplace, *arguments) as training:
        training.wait_for(f"resuming after step {step}:")
        training.wait_for_step(step + 1)
        training.process.send_signal(signal.SIGTERM)
        training.wait_for("once more stops at once")
        time.sleep(0.6)  # else it is the same signal
        training.process.send_signal(signal.SIGTERM)
        assert training.finish(20) == 128 + signal.SIGTERM, training.output


@pytest.mark.cluster
def test_a_halted_driver_that_was_replaced_stops_without_a_trace(workplace: Path) -> None:
    """Its machine may have slept or been cut off; its workers were not, and go on until another attempt takes over."""
    arguments = [*TINY, *DATA, *ENDLESS, "--run.name", "halted", "--run.checkpoint_every", "20"]
    with Training(workplace, *arguments) as halted:
        halted.wait_for("checkpoint at step 20")
        halted.process.send_signal(signal.SIGSTOP)
        # A database of its own: the halted one may hold the lock of the first.
        database = f"sqlite:///{workplace}/other.db"
        with Training(workplace, *arguments, "--mlflow.tracking_uri", database) as other:
            other.wait_for(STARTED)
            assert "run halted belongs to another attempt (process" in other.output
            halted.process.send_signal(signal.SIGCONT)
            assert halted.finish() == 2, halted.output
            assert halted.output.splitlines()[-1].startswith(
                f"error: run halted was taken over by another attempt (process {other.process.pid} on "
            )
            assert "Traceback" not in halted.output
            other.wait_for_step(other.step + 50)
            other.process.send_signal(signal.SIGTERM)
            assert other.finish() == 128 + signal.SIGTERM, other.output
    assert history(workplace, "halted", status="RUNNING")  # how it ends was not the halted one's to say


@pytest.mark.cluster
def test_a_loss_that_is_not_finite_stops_with_the_samples_and_a_good_checkpoint(workplace: Path) -> None:
    """Adam's steps of 1e15 ruin the weights at once."""
    done = train(
        workplace, *TINY, *DATA, "--run.name", "ruined", "--schedule.stage1.lr", "1e15", "--run.checkpoint_every", "1"
    )
    assert done.returncode == 2, done.stdout + done.stderr
    folder = workplace / "runs" / "ruined"
    (record,) = folder.glob("nan_step_*.json")
    content = json.loads(record.read_text())
    assert f"error: step {content['step']} has loss " in done.stderr
    assert str(record) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(content["samples"]) == 5
    assert content["samples"][0]["clip"] == "noise"
    assert done.stdout.count("starting: ") == 1  # not tried again
    for step in checkpoint_steps(workplace, "ruined"):
        assert step < content["step"]
        state = checkpoint.read(str(folder / f"checkpoint_{step:08d}"))
        assert all(torch.isfinite(tensor).all() for tensor in state.weights.values())


@pytest.mark.cluster
def test_a_stalled_worker_is_reported_with_its_stacks_and_restarted(workplace: Path) -> None:
    arguments = [*TINY, *DATA, "--run.name", "stalled", "--run.stall_timeout", "8", "--run.log_every", "1"]
    with Training(workplace, *arguments) as training:
        training.wait_for_step(7)
        stopped = training.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        training.wait_for("has made no step for")
        # The stack of the other one's thread that trains, wherever in a step it waits: forward, checkpoint, validation.
        assert "mana_dist/train/worker.py" in training.output
        training.wait_for("resuming after step")
        assert training.finish() == 0, training.output
    assert sorted(history(workplace, "stalled")) == list(range(1, STEPS + 1))


@pytest.mark.cluster
def test_failures_count_from_the_newest_checkpoint_on(workplace: Path) -> None:
    """With one allowed, a run survives two that have checkpoints between, and ends of two without."""
    arguments = [*TINY, *DATA, *ENDLESS, "--run.name", "unlucky", "--run.max_failures", "1"]
    with Training(workplace, *arguments) as training:
        for number in (1, 2):
            training.wait_for_step(6 * number + 1)
            os.kill(training.workers()[0], signal.SIGKILL)
            training.wait_for("resuming after step", count=number)
        training.wait_for("counting anew")
        rare = [*arguments, "--run.checkpoint_every", "4000"]
        training.process.send_signal(signal.SIGTERM)
        assert training.finish() == 128 + signal.SIGTERM, training.output
    with Training(workplace, *rare) as training:
        for number in (1, 2):
            training.wait_for("resuming after step", count=number)
            training.wait_for_step(checkpoint_steps(workplace, "unlucky")[-1] + 1)
            os.kill(training.workers()[0], signal.SIGKILL)
        assert training.finish() == 2, training.output
        assert "error: workers failed more often than run.max_failures (1) allows" in training.output
        assert "Traceback" not in training.output
    assert (workplace / "runs" / "unlucky" / "failure.txt").exists()
