"""The whole of ``mana train``, in processes of its own, on a private Ray cluster."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from mana_dist.config import Config
from mana_dist.model import ModelConfig
from mana_dist.model.mana import initial_weights
from mana_dist.registry import model_folder
from mana_dist.train.__main__ import main
from tests.conftest import RunHere
from tests.train.trainings import DATA, STEPS, TINY, Training, environment, history, make_workplace, train, weights

BEGIN = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, window=3, memory_slots=4)  # of TINY
ALL = [
    *TINY,
    *DATA,
    *["--schedule.stage1.decay", "cosine", "--schedule.stage1.warmup", "15", "--schedule.stage3.decay", "cosine"],
    *["--schedule.loss", "charbonnier", "--data.reverse", "true", "--run.init", "begin", "--run.ema", "0.9"],
    *["--run.keep_best", "psnr", "--data.motion", "3"],
]
"""A training with all of training's keys."""
WHOLE = [*ALL, "--run.name", "whole"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with data and a model to start from, as a user has it."""
    folder = make_workplace(tmp_path_factory.mktemp("workplace"))
    model_folder.save(str(folder / "begin"), initial_weights(BEGIN, 1), Config(model=BEGIN))
    return folder


@pytest.fixture(scope="module")
def finished(workplace: Path) -> subprocess.CompletedProcess[str]:
    """An undisturbed run."""
    done = train(workplace, *WHOLE)
    assert done.returncode == 0, done.stderr
    return done


def best(workplace: Path) -> tuple[float, int]:
    """The highest PSNR of the undisturbed run, and its step."""
    return max((score, step) for step, score in history(workplace, "whole", "val/psnr").items())


@pytest.mark.slow
def test_the_console_shows_the_course(finished: subprocess.CompletedProcess[str]) -> None:
    out = finished.stdout
    assert "steps: stage 1: 20, stage 2: 8, stage 3: 12" in out
    assert "data: 22 samples an epoch, batch 5, what moves up to 3 times as often" in out
    assert "starting: 2 worker(s)" in out
    assert "starting from " in out
    lines = re.findall(
        r"stage (\d)  step +(\d+)/40  loss [\d.]+  .*[\d.]+ samples/s  .*data-wait [\d.]+%  .*ETA \d+:\d\d", out
    )
    # Once for all workers, at every fourth step, and at checkpoints: every sixth.
    reported = [step for step in range(1, STEPS + 1) if step % 4 == 0 or step % 6 == 0]
    assert [(int(stage), int(step)) for stage, step in lines] == [
        (1 if step <= 20 else 2 if step <= 28 else 3, step) for step in reported
    ]
    assert out.count("validation at step") == 2
    assert "alias 'candidate'" in out
    assert finished.stderr == ""


@pytest.mark.slow
def test_mlflow_holds_one_run_with_everything(workplace: Path, finished: subprocess.CompletedProcess[str]) -> None:
    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    experiment = client.get_experiment_by_name("mana")
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'whole'")
    assert run.data.params["model.channels"] == "8"
    assert run.data.params["schedule.stage3.lr"] == "1e-05"
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert "config.yaml" in artifacts
    assert sorted(history(workplace, "whole")) == list(range(1, STEPS + 1))
    assert sorted(history(workplace, "whole", "val/psnr")) == [20, 40]
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert sum(path.endswith(".png") for path in pictures) == 2
    version = client.get_model_version_by_alias("mana-x4", "candidate")
    assert version.run_id == run.info.run_id
    inputs = {given.tags[0].value: given.dataset.name for given in run.inputs.dataset_inputs}
    assert inputs == {"training": "samples", "validation": "held-out"}
    assert "train --run.name whole" in run.data.tags["mlflow.source.name"].replace(" ".join(ALL) + " ", "")
    assert sorted(history(workplace, "whole", "train/loss_stage2")) == list(range(21, 29))
    assert 0 < history(workplace, "whole", "system/cpu_utilization_percentage")[40] <= 100
    # The model's results are those of its validation, which is the best.
    score, step = best(workplace)
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    results = {metric.key: (metric.value, metric.step, metric.dataset_name) for metric in logged.metrics}
    assert results["psnr_rgb"] == (score, step, "held-out")
    assert f"PSNR {score:.2f} dB" in version.description


@pytest.mark.slow
def test_the_registered_model_serves_in_a_process_of_its_own(
    workplace: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    script = (
        "import mlflow, numpy as np; model = mlflow.pyfunc.load_model('models:/mana-x4@candidate'); "
        "frame = model.predict(np.full((7, 6, 9, 3), 128, np.uint8)); print(frame.shape, frame.dtype)"
    )
    served = subprocess.run(
        [sys.executable, "-c", script], cwd=workplace, env=environment(), capture_output=True, text=True, check=True
    )
    assert served.stdout.strip().splitlines()[-1] == "(24, 36, 3) uint8"


@pytest.mark.slow
def test_the_finished_model_is_a_model_folder(workplace: Path, finished: subprocess.CompletedProcess[str]) -> None:
    folder = workplace / "runs" / "whole" / "model"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    model, config = model_folder.load(str(folder))
    assert config.model.channels == model.config.channels == 8


@pytest.fixture
def train_here(workplace: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """``train`` in this process, for what comes to no training."""
    monkeypatch.chdir(workplace)
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    return functools.partial(run_here, main)


@pytest.mark.slow
def test_the_same_command_again_does_nothing(finished: subprocess.CompletedProcess[str], train_here: RunHere) -> None:
    again = train_here(*WHOLE)
    assert again.returncode == 0
    assert "run whole is finished already" in again.stdout
    assert "starting" not in again.stdout
    assert finished.stdout.splitlines()[-1] == again.stdout.splitlines()[-1]


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_training_to_the_last_bit(
    workplace: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    """With all of training's keys; ``test_exactness`` has more, and without them.

    Also: same seed and same number of workers, so two runs give the same losses.
    """
    arguments = [*ALL, "--run.name", "killed"]
    with Training(workplace, *arguments) as run:
        run.wait_for("checkpoint at step 12")
        run.process.kill()
    resumed = train(workplace, *arguments)
    assert resumed.returncode == 0, resumed.stderr
    start = int(re.findall(r"resuming after step (\d+): 2 worker", resumed.stdout)[0])
    assert start >= 12
    assert "another attempt" not in resumed.stdout  # the dead driver was on this machine: nobody waits for it
    for key in ("train/loss", "val/psnr"):
        assert history(workplace, "killed", key) == history(workplace, "whole", key)
    assert weights(workplace, "killed") == weights(workplace, "whole")
    rates = history(workplace, "whole", "train/lr")  # a killed driver may not have logged all
    assert (rates[12], rates[20]) == pytest.approx((0.8e-3, 0.02e-3))  # rising, and the stage's last
    one, other = (workplace / "runs" / name / f"checkpoint_{STEPS:08d}" for name in ("killed", "whole"))
    average, last, _ = names = ("model.safetensors", "training.safetensors", "optimizer.safetensors")
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert (one / average).read_bytes() != (one / last).read_bytes()
    # No better than the model that has the alias, which it then keeps.
    score, _ = best(workplace)
    decision = f"without alias 'candidate': PSNR {score:.3f} dB against {score:.3f} of version 1 and "
    assert decision in resumed.stdout.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_saves_leaves_no_process_and_says_how_to_go_on(workplace: Path, train_here: RunHere) -> None:
    """And a second attempt meanwhile is refused, and changes nothing."""
    arguments = [*TINY, *DATA, "--run.name", "interrupted", "--schedule.stage1.steps", "5000"]
    with Training(workplace, *arguments, "--run.checkpoint_every", "4000") as run:
        run.wait_for_step(4)
        refused = one_line_error(train_here(*arguments, "--run.checkpoint_every", "4000"))
        owner = rf"process {run.process.pid} on {re.escape(socket.gethostname())}, since 20\d\d-.* UTC"
        line = rf"error: run interrupted belongs to another attempt, which is at work \({owner}\); wait for it, "
        assert re.fullmatch(line + "stop it, or give another run.name", refused)
        run.wait_for_step(run.step + 8)
        assert len(run.processes()) > 4  # driver, raylet, GCS, controller, two workers
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.finish() == 130, run.output
        (saved,) = (workplace / "runs" / "interrupted").glob("checkpoint_*")
        assert f"stopped after step {int(saved.name[11:])} (Ctrl-C)" in run.output
        assert "the same command with --run.name interrupted goes on with it" in run.output
        assert not (workplace / "runs" / "interrupted" / ".lease").exists()  # the run is free at once
        done = int(saved.name[11:])
        assert sorted(history(workplace, "interrupted", status="KILLED")) == list(range(1, done + 1))  # each once
        assert run.output.splitlines()[-1] == "interrupted"
        deadline = time.monotonic() + 60
        while (left := run.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left == {}


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.chanels", "3"], "unknown key model.chanels; did you mean model.channels?"),
        (["--model.window", "4", *DATA], "model.window must be odd and positive, got 4"),
        (["--data.crop", "large", *DATA], "data.crop: expected int, got value: large"),
        ([], "data.path is missing; make samples with `mana ingest"),
        (["--data.path", "nowhere"], "no finished sample dataset there"),
        ([*DATA, "--data.crop", "17"], "LR frames of 16x16, smaller than data.crop 17; lower data.crop to 16"),
        ([*DATA, "--model.frames", "9"], "samples in"),
        ([*DATA, "--run.storage", "a-file/below"], "run.storage: cannot write to"),
        ([*DATA, "--mlflow.tracking_uri", "nope://x"], "mlflow.tracking_uri nope://x cannot be used"),
    ],
)
def test_mistakes_end_with_one_line(workplace: Path, train_here: RunHere, arguments: list[str], message: str) -> None:
    (workplace / "a-file").touch()
    done = train_here(*TINY, *arguments)
    assert message in one_line_error(done)
    assert "starting" not in done.stdout


def test_gpus_that_are_not_there_end_it_with_one_line(workplace: Path) -> None:
    done = train(workplace, *TINY, *DATA, "--run.device", "cuda")
    message = "2 worker(s) need 2 GPU(s), there are 0; lower run.workers or change run.device"
    assert message in one_line_error(done)
    assert "starting" not in done.stdout


def test_a_dry_run_checks_and_prints_and_starts_nothing(workplace: Path, train_here: RunHere) -> None:
    done = train_here(*TINY, *DATA, "--run.name", "dry", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "6,735 parameters" in done.stdout
    assert not (workplace / "runs" / "dry").exists()
    assert "data.path is missing" in one_line_error(train_here(*TINY, "--dry-run"))


def test_another_configuration_under_the_same_name_is_refused(
    finished: subprocess.CompletedProcess[str], train_here: RunHere
) -> None:
    done = train_here(*WHOLE, "--model.channels", "16")
    assert "run whole was started with model.channels 8, now it is 16" in one_line_error(done)


def test_the_model_learns(workplace: Path, finished: subprocess.CompletedProcess[str]) -> None:
    """Stage 1 lowers its loss, and stage 2 its own."""
    losses = history(workplace, "whole")
    assert np.mean([losses[step] for step in range(16, 21)]) < np.mean([losses[step] for step in range(1, 6)])
    assert losses[28] < losses[21]
