"""Opening a training's MLflow run, and a real server that is killed and comes back."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import RestException

from mana_dist.config import Config, MlflowConfig, RunConfig
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import model_folder, versions
from mana_dist.registry.tracking_uri import quiet_mlflow
from mana_dist.train.run_record import RunRecord
from mana_dist.train.tracking.delivery import Delivery, Point, Points, encode
from mana_dist.train.tracking.events import Started
from mana_dist.train.tracking.mlflow_run import Tracker, check_server
from mana_dist.train.tracking.spool import Spool
from tests.ports import free_ports
from tests.train.tracking.tracked import AWAY, FakeClient, progress, steps, validated
from tests.train.trainings import PATIENCE


def config(folder: Path) -> Config:
    return Config(run=RunConfig(name="run", storage=str(folder)), mlflow=MlflowConfig(experiment="e"))


STATEMENTS = "MANA_TEST_STATEMENTS"
# Python runs it at its start, in each process of the server.
SPY = f"""
import os, sqlalchemy.engine, sqlalchemy.event
@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
def note(connection, cursor, statement, *_):
    with open(os.environ["{STATEMENTS}"], "a") as file:
        file.write(" ".join(statement.split()) + "\\n")
"""


class Server:
    """A real MLflow server over a sqlite database, which writes down every SQL statement that it makes."""

    def __init__(self, folder: Path) -> None:
        (folder / "spy").mkdir()
        (folder / "spy" / "sitecustomize.py").write_text(SPY)
        self._statements = folder / "statements"
        (self.port,) = free_ports(1)
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/ml.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        paths = [str(self._folder / "spy"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {STATEMENTS: str(self._statements), "PYTHONPATH": os.pathsep.join(paths)}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self._folder
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=10):
                    return
            except OSError:
                time.sleep(0.1)
        pytest.fail((self._folder / "server.log").read_text())

    def statements(self) -> list[str]:
        """All SQL so far, a statement a line."""
        return self._statements.read_text().splitlines()

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests: it takes seconds to start."""
    subject = Server(tmp_path_factory.mktemp("server"))
    yield subject
    subject.kill()


@pytest.fixture
def server(started: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A running one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    started.start()
    return started


@pytest.mark.slow
def test_a_real_server_killed_and_restarted_has_everything_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_server(server.uri, "e")
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
        check_server(server.uri, "e")
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
    assert resumed.flush(120)
    assert subject.flush(120)

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


class LosesReceipts(MlflowClient):  # type: ignore[misc]  # MLflow comes without types
    """Brings everything to the server, and hears of each batch only if it sends that again."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.sent: list[tuple[tuple[str, int], ...]] = []

    def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), *others: Any, **more: Any) -> Any:
        super().log_batch(run_id, metrics, *others, **more)
        batch = tuple((metric.key, metric.step) for metric in metrics)
        self.sent.append(batch)
        if self.sent.count(batch) == 1:
            raise AWAY


@pytest.mark.slow
def test_points_whose_receipts_were_lost_make_the_server_search_no_history(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redelivered points made it look each of them up, and older servers all that the run has (mlflow/mlflow#24577)."""
    monkeypatch.setattr("mana_dist.train.tracking.delivery.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("mana_dist.train.tracking.delivery.LONGEST_PAUSE", 0.01)
    client = LosesReceipts(server.uri)
    run_id = client.create_run("0").info.run_id
    spool = Spool(str(tmp_path / "updates"))
    series = {key: [Point(key, float(step), 7, step) for step in range(1, 2501)] for key in ("train/loss", "val/x")}
    attempts = [Point("train/workers", 2.0, time, 1) for time in (7, 8)]  # two that began at the same step
    for points in ([*series["train/loss"], *series["val/x"]], attempts[:1], attempts[1:]):
        spool.append(encode(Points(tuple(points))))
    before = len(server.statements())
    Delivery(client, run_id, spool, print, logged={})
    assert spool.wait_empty(60)
    made = server.statements()[before:]
    assert sum("INSERT INTO metrics" in statement for statement in made) >= len(client.sent)  # so they are all seen
    assert [statement for statement in made if " FROM metrics" in statement] == []
    assert len(client.sent) == 5 + 2  # of 1000 points at most, and each once
    for key, expected in {**series, "train/workers": attempts}.items():
        history = client.get_metric_history(run_id, key)
        assert sorted((point.step, point.timestamp, point.value) for point in history) == [
            (point.step, point.timestamp, point.value) for point in expected
        ]


def test_an_unreachable_server_is_a_users_mistake_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(UserError, match=r"mlflow.tracking_uri http://127.0.0.1:\d+ cannot be used"):
        Tracker.open(config(tmp_path), uri, None)
    with pytest.raises(UserError, match="start it or name another"):
        check_server(uri, "e")


@pytest.mark.slow
def test_a_recorded_run_resumes_without_its_server(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Tracker.open(config(tmp_path), server.uri, None)
    first.log(Started(0, 2, "CPU", ()))
    first.log(progress(4, count=4))
    first.log(validated(4))
    assert first.flush(30)
    server.kill()
    resumed = Tracker.open(config(tmp_path), server.uri, RunRecord("", server.uri, first.run_id))
    assert resumed.run_id == first.run_id
    resumed.log(Started(2, 1, "CPU", (1.0, 2.0)))
    for event in (progress(4), validated(4), progress(6), validated(6)):
        resumed.log(event)
    assert not resumed.flush(1.0)
    server.start()
    assert resumed.flush(60)
    client = MlflowClient(server.uri)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    for key in ("train/loss", "train/gradient_norm"):
        points = [(point.step, point.value) for point in client.get_metric_history(first.run_id, key)]
        assert sorted(points) == steps(6)
    assert [point.step for point in client.get_metric_history(first.run_id, "val/psnr")] == [4, 6]
    assert [point.step for point in client.get_metric_history(first.run_id, "train/lr")] == [4, 6]
    pictures = [item.path for item in client.list_artifacts(first.run_id, "images") if item.path.endswith(".png")]
    assert [int(path.split("+")[2]) for path in pictures] == [4, 6]
    out = capsys.readouterr().out
    assert (out.count("does not answer"), out.count("MLflow is back")) == (1, 1)


@pytest.mark.parametrize(
    ("error", "is_mistake"),
    [
        (AWAY, False),
        (RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "starting"}), False),
        (RestException({"error_code": "UNAUTHENTICATED", "message": "who are you?"}), True),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"}), True),
    ],
)
def test_only_a_server_that_does_not_answer_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_mistake: bool
) -> None:
    client = FakeClient()
    monkeypatch.setattr("mana_dist.train.tracking.mlflow_run.MlflowClient", lambda uri: client)
    client.error = error
    record = RunRecord("", "http://fake", "run")
    if is_mistake:
        with pytest.raises(UserError, match="mlflow.tracking_uri http://fake cannot be used"):
            Tracker.open(config(tmp_path), "http://fake", record)
    else:
        assert Tracker.open(config(tmp_path), "http://fake", record).run_id == "run"


def test_files_of_others_among_the_updates_are_no_obstacle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/ml.db"
    first = Tracker.open(config(tmp_path), uri, None)
    first.close("KILLED")
    updates = tmp_path / "run" / "mlflow-updates" / first.run_id
    updates.mkdir(parents=True)
    (updates / "000000000001.json.bak").write_text("a copy")
    (updates / "000000000002.json").write_text("half a fi")
    again = Tracker.open(config(tmp_path), uri, RunRecord("", uri, first.run_id))
    again.log(progress(2))
    assert again.flush(30)
    assert [point.step for point in MlflowClient(uri).get_metric_history(first.run_id, "train/loss")] == [1, 2]
    assert "refuses an update, which is left out" in capsys.readouterr().out
    assert [path.name for path in updates.iterdir()] == ["000000000001.json.bak"]


def test_storage_that_cannot_be_read_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mlflow-updates").touch()  # a file, where a folder should be
    with pytest.raises(UserError, match=f"run.storage {tmp_path} cannot be used"):
        Tracker.open(config(tmp_path), f"sqlite:///{tmp_path}/ml.db", None)


def test_a_database_that_is_not_there_yet_is_not_made_by_a_check(tmp_path: Path) -> None:
    check_server(f"sqlite:///{tmp_path}/new.db", "e")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="mlflow.tracking_uri"):
        check_server(f"sqlite:///{tmp_path}/file/new.db", "e")


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


@pytest.mark.slow
def test_a_password_in_the_uri_of_a_server_is_not_printed(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    quiet_mlflow()  # as each command does
    uri = server.uri.replace("://", "://ann:s3cret@")  # a server without passwords takes any
    tracker = Tracker.open(config(tmp_path), uri, None)
    tracker.close("FINISHED")
    assert tracker.flush(60)
    given = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, memory_slots=4))
    given = dataclasses.replace(given, mlflow=MlflowConfig(registered_model="m"))
    model_folder.save(str(tmp_path / "model"), Mana(given.model).state_dict(), given)
    versions.log_and_register(str(tmp_path / "model"), given, tracker.run_id, uri)
    assert "s3cret" not in "".join(capfd.readouterr())
    client = MlflowClient(server.uri)
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert client.get_model_version("m", "1").run_id == tracker.run_id


def test_a_run_shows_no_password(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/ml.db"
    given = dataclasses.replace(
        config(tmp_path), mlflow=MlflowConfig(tracking_uri="http://ann:s3cret@host:5000", experiment="e")
    )
    tracker = Tracker.open(given, uri, None)
    tracker.close("FINISHED")
    client = MlflowClient(uri)
    params = client.get_run(tracker.run_id).data.params
    assert "mlflow.tracking_uri" not in params
    assert params["run.storage"] == str(tmp_path)
    artifact = Path(client.download_artifacts(tracker.run_id, "config.yaml", str(tmp_path))).read_text()
    assert "s3cret" not in artifact + str(params)
    assert "storage: " in artifact
