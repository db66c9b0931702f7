"""``ray job submit``: the same command on a cluster that runs already, with token authentication."""

import re
import subprocess
import time
from pathlib import Path

import pytest

import mana_dist
from tests.train.datasets import make_dataset
from tests.train.nodes import RAY, Nodes
from tests.train.trainings import TINY

REPOSITORY = Path(mana_dist.__file__).parents[1]


def submit(cluster: Nodes, tmp_path: Path, *arguments: str) -> list[str]:
    """``ray job submit`` of a training that a user's grace of 30 s is given to."""
    grace = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}'
    command = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--runtime-env-json", grace]
    command += [*arguments, "--", "python", "-m", "mana_dist.train", *TINY, "--run.name", "job"]
    command += ["--data.path", str(tmp_path / "samples"), "--run.storage", str(tmp_path / "runs")]
    return [*command, "--mlflow.tracking_uri", f"sqlite:///{tmp_path}/mlflow.db"]


def run(cluster: Nodes, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command; again as long as the head is up and its node is not yet."""
    deadline = time.monotonic() + 300
    while True:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=cluster.environment, capture_output=True, text=True, timeout=300, check=False
        )
        if "No available agent to submit job" not in done.stderr or time.monotonic() > deadline:
            return done


@pytest.mark.cluster
def test_a_job_that_is_stopped_or_whose_head_is_lost_goes_on_under_the_same_name(tmp_path: Path) -> None:
    make_dataset(str(tmp_path / "samples"), 10)
    often = ["--schedule.stage1.steps", "3000", "--run.log_every", "1", "--run.checkpoint_every", "50"]
    with Nodes(cpus=2) as cluster:
        address = ["--address", cluster.dashboard]
        begin(cluster, [*submit(cluster, tmp_path, "--no-wait", "--submission-id", "first"), *often])
        wait_for_log(cluster, "first", "checkpoint at step 50 ")
        stopped = run(cluster, [RAY, "job", "stop", *address, "first"])
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        log = run(cluster, [RAY, "job", "logs", *address, "first"]).stdout
        step = int(re.findall(r"stopped after step (\d+) \(SIGTERM\)", log)[0])
        run(cluster, [*submit(cluster, tmp_path, "--no-wait", "--submission-id", "second"), *often])
        log = wait_for_log(cluster, "second", f"checkpoint at step {(step // 50 + 1) * 50} ")
        assert f"resuming after step {step}: 2 worker(s)" in log
        cluster.kill()
    with Nodes(cpus=2) as cluster:
        begin(cluster, [*submit(cluster, tmp_path, "--no-wait", "--submission-id", "third"), *often])
        log = wait_for_log(cluster, "third", "resuming after step ")
        assert int(re.findall(r"resuming after step (\d+)", log)[0]) >= (step // 50 + 1) * 50
        cluster.kill()  # it would train for long


def begin(cluster: Nodes, command: list[str]) -> None:
    """Submit a job to a cluster that has just started: on a busy machine its agent for jobs comes late."""
    deadline = time.monotonic() + 300
    while (begun := run(cluster, command)).returncode and "No available agent" in begun.stdout + begun.stderr:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert begun.returncode == 0, begun.stdout + begun.stderr


def wait_for_log(cluster: Nodes, job: str, text: str) -> str:
    """The job's log, once it holds ``text``."""
    deadline = time.monotonic() + 600
    log = ""
    while text not in log:
        assert time.monotonic() < deadline, log
        log = run(cluster, [RAY, "job", "logs", "--address", cluster.dashboard, job]).stdout
    return log
