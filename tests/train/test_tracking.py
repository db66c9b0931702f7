"""MLflow may go and come back: nothing waits for it, nothing is missing afterwards, and nothing is there twice."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from mana_dist.config import Config, MlflowConfig, RunConfig
from mana_dist.errors import UserError
from mana_dist.train.events import Checkpointed, Progress, Stalled, Started, Validated
from mana_dist.train.run_record import RunRecord
from mana_dist.train.spool import Spool
from mana_dist.train.tracking import Tracker, check_server

PICTURE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def progress(step: int, count: int = 2) -> Progress:
    """Of the ``count`` steps up to ``step``; each step's loss tells the step."""
    losses = tuple(float(number) for number in range(step - count + 1, step + 1))
    return Progress(1, step, 100, losses, 1e-3, 20.0, 0.01, 5.0, gradient_norms=losses, tflops=0.5, memory=2**30)


def validated(step: int) -> Validated:
    return Validated(step, 30.0, 0.9, 28.0, 0.8, PICTURE, 1.5)


class FakeClient:
    """Remembers what it is given; can be away, slow to a standstill, or refuse."""

    tracking_uri = "http://fake"

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def _call(self, name: str) -> None:
        self.gate.wait()
        if self.error:
            raise self.error
        self.calls.append(name)

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self._call("metrics")
        self.losses += [(metric.step, metric.value) for metric in metrics if metric.key == "train/loss"]

    def log_image(self, run_id: str, image: Any, *, key: str, step: int, timestamp: int) -> None:
        assert np.array_equal(np.asarray(image), PICTURE)
        self._call(f"{key} {step}")

    def list_artifacts(self, run_id: str, path: str) -> list[Any]:
        return []

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self._call(status)


AWAY = MlflowException("API request to http://fake failed with exception: refused")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr("mana_dist.train.delivery.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("mana_dist.train.delivery.LONGEST_PAUSE", 0.02)
    return FakeClient()


def tracker(client: Any, folder: Path, lines: list[str], logged: tuple[int, int] = (0, 0)) -> Tracker:
    return Tracker(client, "run", Spool(str(folder)), logged, lines.append)


def steps(count: int) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in range(1, count + 1)]


def test_updates_arrive_in_order(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    subject = tracker(client, tmp_path, lines)
    for event in (Started(0, 2, "CPU", ()), progress(2), validated(2), Checkpointed(2, 0.5), progress(4)):
        subject.log(event)
    subject.close("FINISHED")
    assert client.losses == steps(4)
    assert [call for call in client.calls if call != "metrics"] == ["validation 2", "FINISHED"]
    assert lines == []
    assert list(tmp_path.iterdir()) == []


def test_away_is_said_once_and_back_once_and_all_arrives(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    subject = tracker(client, tmp_path, lines)
    client.error = AWAY
    for step in range(2, 42, 2):
        subject.log(progress(step))
        subject.log(validated(step))
        time.sleep(0.005)
    assert not subject.flush(0.05)
    assert list(tmp_path.iterdir())  # safe from the driver's death
    client.error = None
    assert subject.flush(10)
    assert client.losses == steps(40)
    assert [call for call in client.calls if call != "metrics"] == [f"validation {step}" for step in range(2, 42, 2)]
    assert len(lines) == 2
    assert lines[0].startswith("MLflow at http://fake does not answer (API request")
    assert lines[1].startswith("MLflow is back after 0:")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_accepts_and_never_answers_holds_nobody_up(client: FakeClient, tmp_path: Path) -> None:
    client.gate.clear()
    subject = tracker(client, tmp_path, [])
    before = time.perf_counter()
    for step in range(2, 102, 2):
        subject.log(progress(step))
    subject.log(Checkpointed(100, 0.1))
    assert time.perf_counter() - before < 20  # MLflow would have held it up for ever
    kept = Spool(str(tmp_path))
    assert len(kept) > 100  # at a checkpoint, everything that has not arrived is safe
    client.gate.set()
    assert subject.flush(10)
    assert client.losses == steps(100)


def test_what_never_arrived_comes_with_the_next_attempt(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    client.error = AWAY
    subject = tracker(client, tmp_path, lines)
    for step in (2, 4, 6):
        subject.log(progress(step))
    subject.log(validated(6))
    before = time.perf_counter()
    subject.close("KILLED", timeout=0.1)
    assert time.perf_counter() - before < 5
    assert "the same command delivers them" in lines[-1]

    other = FakeClient()
    resumed = tracker(other, tmp_path, [])
    # Resumed from step 4, whose checkpoint remembers steps 3 and 4; step 5 and 6 are done again.
    for event in (Started(4, 1, "CPU", (3.0, 4.0)), progress(6), progress(8), validated(6), validated(8)):
        resumed.log(event)
    assert resumed.flush(10)
    assert other.losses == steps(8)
    assert [call for call in other.calls if call.startswith("validation")] == ["validation 6", "validation 8"]


def test_losses_that_only_the_checkpoint_remembers_are_logged(client: FakeClient, tmp_path: Path) -> None:
    subject = tracker(client, tmp_path, [], logged=(3, 0))
    subject.log(Started(6, 2, "CPU", (2.0, 3.0, 4.0, 5.0, 6.0)))
    assert subject.flush(10)
    assert client.losses == [(4, 4.0), (5, 5.0), (6, 6.0)]


def test_a_refused_update_is_left_out_and_does_not_block_the_others(client: FakeClient, tmp_path: Path) -> None:
    lines: list[str] = []
    subject = tracker(client, tmp_path, lines)
    client.error = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"})
    subject.log(Checkpointed(1, 0.1))
    assert subject.flush(10)
    client.error = None
    subject.log(progress(2))
    assert subject.flush(10)
    assert client.losses == steps(2)
    assert len(lines) == 1
    assert "refuses an update, which is left out: INVALID_PARAMETER_VALUE: too long" in lines[0]


def test_events_without_figures_are_no_concern(client: FakeClient, tmp_path: Path) -> None:
    subject = tracker(client, tmp_path, [])
    subject.log(Stalled(1, 600.0, "stacks"))
    assert subject.flush(10)
    assert client.calls == []


def config(folder: Path) -> Config:
    return Config(run=RunConfig(name="run", storage=str(folder)), mlflow=MlflowConfig(experiment="e"))


class Server:
    """A real MLflow server over a sqlite database."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/ml.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self._folder
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        pytest.fail((self._folder / "server.log").read_text())

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    subject = Server(tmp_path)
    subject.start()
    yield subject
    subject.kill()


@pytest.mark.slow
def test_a_real_server_killed_and_restarted_has_everything_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_server(server.uri)
    subject = Tracker.open(config(tmp_path), server.uri, None)
    subject.log(Started(0, 2, "CPU", ()))
    subject.log(progress(2))
    subject.log(validated(2))
    server.kill()  # perhaps in the middle of a request
    for step in range(4, 42, 2):
        subject.log(progress(step))
    subject.log(validated(40))
    assert not subject.flush(1.0)
    with pytest.raises(UserError, match="cannot be used"):
        check_server(server.uri)
    subject.close("KILLED", timeout=0.1)

    # Another driver finds the updates of the first, which goes on trying: the worst that can happen to them.
    server.start()
    record = RunRecord("", server.uri, subject.run_id)
    resumed = Tracker.open(config(tmp_path), server.uri, record)
    resumed.log(Started(38, 1, "CPU", (37.0, 38.0)))
    for step in (40, 42):
        resumed.log(progress(step))
        resumed.log(validated(step))
    resumed.close("FINISHED")
    assert resumed.flush(30)
    assert subject.flush(30)

    client = MlflowClient(server.uri)
    for key in ("train/loss", "train/gradient_norm"):
        points = [(point.step, point.value) for point in client.get_metric_history(subject.run_id, key)]
        assert sorted(points) == steps(42)
    assert sorted(point.step for point in client.get_metric_history(subject.run_id, "val/psnr")) == [2, 40, 42]
    pictures = [item.path for item in client.list_artifacts(subject.run_id, "images") if item.path.endswith(".png")]
    assert {int(path.split("+")[2]) for path in pictures} == {2, 40, 42}
    out = capsys.readouterr().out
    assert out.count("does not answer") == 1
    assert out.count("MLflow is back") == 1


def test_an_unreachable_server_is_a_users_mistake_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(UserError, match=r"mlflow.tracking_uri http://127.0.0.1:\d+ cannot be used"):
        Tracker.open(config(tmp_path), uri, None)
    with pytest.raises(UserError, match="start it or name another"):
        check_server(uri)


def test_a_database_that_is_not_there_yet_is_not_made_by_a_check(tmp_path: Path) -> None:
    check_server(f"sqlite:///{tmp_path}/new.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="mlflow.tracking_uri"):
        check_server(f"sqlite:///{tmp_path}/file/new.db")


def test_a_run_keeps_its_mlflow_run_and_a_deleted_one_is_replaced(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/ml.db"
    first = Tracker.open(config(tmp_path), uri, None)
    first.log(progress(2))
    first.close("KILLED")
    record = RunRecord("", uri, first.run_id)
    again = Tracker.open(config(tmp_path), uri, record)
    assert again.run_id == first.run_id
    client = MlflowClient(uri)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    assert client.get_run(first.run_id).data.params["run.name"] == "run"
    again.log(progress(4, count=4))
    again.close("FINISHED")
    assert sorted(point.step for point in client.get_metric_history(first.run_id, "train/loss")) == [1, 2, 3, 4]
    assert client.get_run(first.run_id).info.status == "FINISHED"
    client.delete_run(first.run_id)
    assert Tracker.open(config(tmp_path), uri, record).run_id != first.run_id
    elsewhere = dataclasses.replace(record, tracking_uri="sqlite:///elsewhere.db")
    assert Tracker.open(config(tmp_path), uri, elsewhere).run_id != first.run_id
