"""The rule for the default tracking URI."""

import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mana_dist.errors import UserError
from mana_dist.registry.tracking_uri import (
    artifact_location,
    experiment_id,
    quiet_mlflow,
    resolve_tracking_uri,
    single_tries,
    sqlite_file,
)
from tests.web_server import web_server


def test_named_value_wins_over_the_environment_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert resolve_tracking_uri(None) == "http://tracking:5000"
    assert resolve_tracking_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert resolve_tracking_uri("sqlite:///runs/b.db") == f"sqlite:///{tmp_path}/runs/b.db"


@pytest.mark.parametrize("password", ["s3cr/et", "s3@cr/et", "s3cr?et", "s3cr#et", "12/34"])
def test_a_password_that_would_count_as_a_path_is_refused_and_no_part_of_it_told(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    for scheme in ("http", "HTTPS"):
        with pytest.raises(UserError, match=r"mlflow\.tracking_uri: .*%2F") as refused:
            resolve_tracking_uri(f"{scheme}://ann:{password}@host:5000")
        assert not any(part in str(refused.value) for part in re.split("[/?#@]", password))
    encoded = f"http://ann:{quote(password, safe='')}@host:5000/base?x=1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", encoded)
    assert resolve_tracking_uri() == encoded
    assert requests.utils.get_auth_from_url(encoded) == ("ann", password)  # by which MLflow's client logs in


def test_sqlite_artifacts_lie_beside_the_database_and_servers_decide_themselves() -> None:
    assert artifact_location("sqlite:////a/mlflow.db") == "file:///a/mlruns"
    assert artifact_location("http://tracking:5000") is None


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%41 ü"])
def test_in_a_folder_of_any_name_database_and_artifacts_lie_in_it_and_nothing_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    quiet_mlflow()
    from mlflow import MlflowClient

    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = resolve_tracking_uri()
    assert sqlite_file(uri) == str(folder / "mlflow.db")
    assert resolve_tracking_uri(uri) == uri
    client = MlflowClient(uri)
    run = client.create_run(experiment_id(client, "mana")).info
    client.log_text(run.run_id, "text", "some.txt")
    assert Path(client.download_artifacts(run.run_id, "some.txt", str(tmp_path))).read_text() == "text"
    assert [path.read_text() for path in (folder / "mlruns").rglob("some.txt")] == ["text"]
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select run_uuid from runs").fetchall() == [(run.run_id,)]
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.db", "mlruns"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "some.txt"])


def test_what_stands_in_a_uri_is_read_as_sqlalchemy_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_file("sqlite:////a/b%20c.db?timeout=9") == "/a/b c.db"
    assert resolve_tracking_uri("sqlite:////a/b%20c.db?timeout=9") == "sqlite:////a/b c.db?timeout=9"
    assert resolve_tracking_uri("sqlite:///a#b.db") == f"sqlite:///{tmp_path}/a#b.db"


@pytest.mark.parametrize("before", [None, "3"])
def test_a_request_is_made_once_while_somebody_else_repeats_it(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with web_server() as server:
        server.failures = 100  # the status 503, which MLflow's client would try again
        with single_tries(), pytest.raises(MlflowException, match="503"):
            MlflowClient(server.url).get_run("0" * 32)
        assert len(server.requests) == 1
    assert os.environ.get(name) == before
