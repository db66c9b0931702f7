"""Trials on a real Ray Tune, with a program in their place that only does what it is given."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mana_dist.sweep.trial_messages import Report, parse_report, report_line
from mana_dist.sweep.tuning import RETRIES, concurrency
from tests.sweep.outcomes import CONFIG
from tests.sweep.trial_scripts import NAMES
from tests.train.trainings import environment

FINISHES, STOPPED, RECOVERS, DIES = NAMES
PSNRS: dict[str, list[float | str]] = {
    FINISHES: [1.0, 30.0, 31.0],
    STOPPED: [40.0, 29.0, *[33.0] * 900],
    RECOVERS: [2.0, 30.5, 32.0],
    DIES: [30.0, "die"],
}


@dataclass(frozen=True)
class Sweep:
    """What came of it."""

    folder: Path
    errors: dict[str, str]

    def lines(self, what: str) -> list[str]:
        return (self.folder / what).read_text().splitlines()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("tuning")
    command = [sys.executable, "-m", "tests.sweep.trial_scripts", str(folder), json.dumps(PSNRS), "2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return Sweep(folder, dict(json.loads(done.stdout.splitlines()[-1])))


@pytest.mark.cluster
def test_a_trial_is_stopped_that_validates_worse_than_half_of_those_before_it(sweep: Sweep) -> None:
    # What counts is 29.0 at the rung of 2 steps, not 40.0 before; it did not make its other 900 steps.
    assert STOPPED in sweep.lines("begun")
    assert sweep.lines("done") == [FINISHES, RECOVERS]
    assert not sweep.errors[STOPPED]


@pytest.mark.cluster
def test_a_process_that_dies_is_started_again_and_the_others_go_on(sweep: Sweep) -> None:
    assert [name for name, error in sweep.errors.items() if error] == [DIES]
    assert "its process ended with code 1: out of luck; see " in sweep.errors[DIES]
    assert "out of luck" in (sweep.folder / "sweep" / "logs" / f"{DIES}.txt").read_text()
    assert sweep.lines("begun").count(DIES) == 1 + RETRIES


def test_as_many_trials_at_a_time_as_there_is_room_for() -> None:
    cpus, gpus = {"CPU": 64.0}, {"CPU": 64.0, "GPU": 8.0}
    assert concurrency(CONFIG, {"CPU": 8.0}, cpus) == 4  # of two workers with a CPU each
    assert concurrency(CONFIG, {"CPU": 64.0, "GPU": 6.0}, gpus) == 3
    assert concurrency(CONFIG, {"CPU": 64.0}, gpus) == 1  # others have the GPUs that trials will wait for
    assert concurrency(CONFIG, {"CPU": 1.0}, cpus) == 1
    on_cpus = dataclasses.replace(CONFIG, run=dataclasses.replace(CONFIG.run, device="cpu"))
    assert concurrency(on_cpus, gpus, gpus) == 32
    elastic = dataclasses.replace(CONFIG, run=dataclasses.replace(CONFIG.run, workers="1-4"))
    assert concurrency(elastic, {"CPU": 8.0}, cpus) == 2


def test_a_report_that_another_line_was_mixed_into_is_no_report() -> None:
    line = report_line(Report(what="training", step=3))
    assert parse_report(line) == Report(what="training", step=3)
    assert parse_report(f"{line}checkpoint at step 5") is None
    assert parse_report(line[:-9]) is None
    assert parse_report('@@mana_dist {"what": "training", "unknown": 1}') is None
