"""A whole sweep on Ray: two settings, tiny steps; killed in the middle, and yet what it would have been."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

import mana_dist
from tests.evaluate.footage import frames_of, write_folder
from tests.train.trainings import TINY, Training, environment, make_workplace, train

SCRIPT = Path(mana_dist.__file__).parents[1] / "tune" / "sweep_memory.py"
KEYS = [*TINY, "--data.path", "samples", "--schedule.stage3.steps", "60"]
SWEEP = [*KEYS, "--slots", "none", "4", "--evaluate-on", "clip"]

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workplace(tmp_path_factory.mktemp("sweep"))
    write_folder(folder / "clip", frames_of(3))
    return folder


@pytest.fixture(scope="module")
def swept(workplace: Path) -> Path:
    """The folder of a sweep whose driver was killed, and then, when it went on, a worker."""
    folder = workplace / "runs" / "swept"
    first = begin(workplace)
    wait(first, (folder / ".lease").exists, "the sweep's lease")
    refused = subprocess.run(
        [sys.executable, str(SCRIPT), *SWEEP, "--run.name", "swept"],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    owner = rf"process {first.process.pid} on .*, since .*"
    line = (
        rf"error: sweep swept belongs to another attempt, which is at work \({owner}\); wait for it, stop it, or .*\n"
    )
    assert refused.returncode == 2
    assert re.fullmatch(line, refused.stderr)
    wait(first, lambda: in_stage_3(folder / "trials" / "none-seed0"), "stage 3 of the first trial")
    first.process.kill()
    first.process.wait()
    assert not (folder / "ledger" / "none-seed0.json").exists()
    shared = folder / "ledger" / "stage1-seed0.json"
    written = shared.stat().st_mtime_ns
    second = begin(workplace)
    wait(second, lambda: in_stage_3(folder / "trials" / "4-seed0"), "stage 3 of the second trial")
    os.kill(second.workers()[0], signal.SIGKILL)
    assert second.finish(400) == 0, second.output
    assert "registered as models:/mana-x4/1 with alias 'candidate'" in second.output
    assert shared.stat().st_mtime_ns == written  # not trained again
    return folder


def test_a_trial_on_shared_stage_1_that_was_killed_is_a_training_from_scratch_to_the_bit(
    workplace: Path, swept: Path
) -> None:
    done = train(
        workplace, *KEYS, "--model.memory_slots", "4", "--run.name", "scratch", "--mlflow.registered_model", "x"
    )
    assert done.returncode == 0, done.stderr
    expected = load_file(workplace / "runs" / "scratch" / "model" / "model.safetensors")
    found = load_file(swept / "trials" / "4-seed0" / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


def test_the_table_the_registry_and_mlflow_hold_the_sweep(workplace: Path, swept: Path) -> None:
    rows = table_of(swept)
    assert [row["setting"] for row in rows] == ["No_Mem", "N = 4"]
    psnr = {}
    for row, trial in zip(rows, ("none-seed0", "4-seed0"), strict=True):
        metrics = json.loads((swept / "evaluations" / trial / "metrics.json").read_text())
        (method,) = metrics["methods"].values()
        assert float(row["clip PSNR (dB)"]) == method["mean"]["psnr_rgb"]
        psnr[trial] = method["mean"]["psnr_rgb"]
    client = MlflowClient(f"sqlite:///{workplace}/mlflow.db")
    experiment = client.get_experiment_by_name("mana").experiment_id
    (parent,) = client.search_runs([experiment], "attributes.run_name = 'swept'")
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {child.info.run_name for child in children} == {"stage1-seed0", "none-seed0", "4-seed0"}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    logged = {child.info.run_name: child.data.metrics.get("test/psnr_rgb") for child in children}
    assert logged == {**psnr, "stage1-seed0": None}
    version = client.get_model_version_by_alias("mana-x4", "candidate")
    best = max(psnr, key=lambda name: psnr[name])
    assert client.get_run(version.run_id).info.run_name == best
    assert {"report.html", "table.md", "table.csv", "quality.svg"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }


def begin(folder: Path) -> Training:
    return Training(folder, *SWEEP, "--run.name", "swept", program=[str(SCRIPT)])


def wait(sweep: Training, done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 300
    while not done():
        assert sweep.process.poll() is None, f"ended before {what}:\n{sweep.output}"
        assert time.monotonic() < deadline, f"no {what}:\n{sweep.output}"
        time.sleep(0.01)


def in_stage_3(run: Path) -> bool:
    """TINY's stages 1 and 2 take 28 steps."""
    return any(int(folder.name.partition("_")[2]) > 28 for folder in run.glob("checkpoint_*"))


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open() as stream:
        return list(csv.DictReader(stream))
