"""A training that was killed, stopped and moved about is the very same training (fp32, CPU)."""

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.train.trainings import DATA, STARTED, STEPS, TINY, Training, history, make_workplace, train, weights

EVERY = 3
OFTEN = [
    *["--run.log_every", "1", "--run.checkpoint_every", str(EVERY)],
    # The paper's rate. At ten times as much, training makes more of rounding: 4e-4 between these runs was seen.
    *["--schedule.stage1.lr", "1e-4", "--schedule.stage2.lr", "1e-4"],
    # Steps that take long enough to be hit: workers whose driver is killed go on for about a second.
    *["--model.channels", "16", "--model.decoder_blocks", "4", "--data.crop", "16", "--data.batch_size", "80"],
]
KILLS = int(os.environ.get("MANA_TEST_KILLS", "4"))
"""Every second one takes the driver, whose start is slow: ten were run by hand."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("exactness"))


@pytest.fixture(scope="module")
def whole(workplace: Path) -> str:
    """The name of an undisturbed run."""
    done = train(workplace, *TINY, *DATA, *OFTEN, "--run.name", "whole")
    assert done.returncode == 0, done.stderr
    return "whole"


@pytest.mark.cluster
def test_kills_at_random_steps_change_no_bit(workplace: Path, whole: str) -> None:
    """Every other time a worker, else the driver and with it the whole Ray cluster."""
    rng = random.Random(5)
    targets = sorted(rng.sample(range(1, STEPS - 10), KILLS))  # what is told lags behind what is done
    arguments = [*TINY, *DATA, *OFTEN, "--run.name", "killed", "--run.max_failures", str(KILLS)]
    training = Training(workplace, *arguments)
    for number, target in enumerate(targets):
        training.wait_for_step(target)
        told, starts = training.step, training.output.count(STARTED)
        if number % 2:
            kill_all(training)
            wait_until_gone(training)
            training, starts = Training(workplace, *arguments), 0
        else:
            os.kill(rng.choice(training.workers()), signal.SIGKILL)
        training.wait_for(STARTED, count=starts + 1)
        resumed = re.findall(r"(?:resuming after step (\d+)|starting): 2 worker", training.output)
        assert int(resumed[-1] or 0) >= told - EVERY  # that much may be lost, and no more
    assert training.finish() == 0, training.output
    assert history(workplace, "killed") == history(workplace, whole)
    assert history(workplace, "killed", "val/psnr") == history(workplace, whole, "val/psnr")
    assert weights(workplace, "killed") == weights(workplace, whole)


@pytest.mark.cluster
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(workplace: Path, whole: str) -> None:
    arguments = [*TINY, *DATA, *OFTEN, "--run.name", "damaged"]
    with Training(workplace, *arguments) as training:
        training.wait_for("checkpoint at step 12")
        kill_all(training)
        wait_until_gone(training)
    last = max((workplace / "runs" / "damaged").glob("checkpoint_*"))
    file = last / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    resumed = train(workplace, *arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{last.name} is damaged (model.safetensors has" in resumed.stdout
    assert history(workplace, "damaged") == history(workplace, whole)
    assert weights(workplace, "damaged") == weights(workplace, whole)


def kill_all(training: Training) -> None:
    """The driver, and at once its workers, which would go on for a second and might finish the run."""
    workers = training.workers()
    training.process.kill()
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    training.process.wait()


def wait_until_gone(training: Training) -> None:
    """A killed driver's cluster ends by itself; a new run beside it would only be slow."""
    deadline = time.monotonic() + 30
    while training.workers() and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.cluster
def test_other_world_sizes_and_zero_stages_give_the_same_losses(workplace: Path, whole: str) -> None:
    """1 -> 2 -> 1 workers with ZeRO 0 -> 1 -> 3, handed over in the middle of stages, against 2 workers and ZeRO 1."""
    plan = [(1, 0, 9), (2, 1, 23), (1, 3, None)]
    for workers, zero, stop in plan:
        arguments = [*TINY, *DATA, *OFTEN, "--run.name", "moved"]
        arguments += ["--run.workers", str(workers), "--run.zero_stage", str(zero)]
        with Training(workplace, *arguments) as training:
            if stop is not None:
                training.wait_for_step(stop)
                training.process.send_signal(signal.SIGTERM)
                assert training.finish() == 128 + signal.SIGTERM, training.output
            else:
                assert training.finish() == 0, training.output
            assert f"{workers} worker(s) on CPU" in training.output
    expected, found = history(workplace, whole), history(workplace, "moved")
    assert sorted(found) == list(range(1, STEPS + 1))
    assert [found[step] for step in sorted(found)] == pytest.approx(
        [expected[step] for step in sorted(found)], rel=1e-5
    )
