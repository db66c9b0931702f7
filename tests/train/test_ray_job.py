"""``ray job submit``: the same command on a cluster that runs already, with token authentication."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mana_dist
from mana_dist import model_folder
from tests.train.datasets import make_dataset
from tests.train.test_train import TINY

REPOSITORY = Path(mana_dist.__file__).parents[1]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Cluster:
    """A running head node."""

    dashboard: str
    environment: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """``ray start --head``, in a session of its own, so that nothing else is touched when it ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    port, dashboard = free_port(), free_port()
    temporary = tempfile.mkdtemp(prefix="ray-")  # short: socket paths in it must stay below 108 bytes
    start = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--temp-dir={temporary}"]
    start += ["--include-dashboard=true", f"--dashboard-port={dashboard}", "--disable-usage-stats"]
    with open(f"{temporary}/head.log", "w", encoding="utf-8") as log:
        head = subprocess.Popen(start, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{dashboard}/api/version", environment["RAY_AUTH_TOKEN"])
        yield Cluster(f"http://127.0.0.1:{dashboard}", environment)
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for(url: str, token: str, seconds: float = 90) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@pytest.mark.slow
def test_a_submitted_job_trains_to_a_registered_model(cluster: Cluster, tmp_path: Path) -> None:
    make_dataset(str(tmp_path / "samples"), 10)
    submit = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--", "python", "-m"]
    submit += ["mana_dist.train", "--config", "tiny", *TINY, "--data.path", str(tmp_path / "samples")]
    submit += ["--schedule.stage1.steps", "4", "--schedule.stage2.steps", "2", "--schedule.stage3.steps", "2"]
    submit += ["--run.name", "job", "--run.storage", str(tmp_path / "runs")]
    submit += ["--mlflow.tracking_uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run(
        submit, cwd=REPOSITORY, env=cluster.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stage 3  step 8/8" in done.stdout
    assert "registered as models:/mana-x4/1 with alias 'candidate'" in done.stdout
    assert model_folder.load(str(tmp_path / "runs" / "job" / "model"))[1].run.name == "job"
