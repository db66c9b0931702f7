"""The rule for the default tracking URI."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mana_dist.tracking_uri import artifact_location, resolve_tracking_uri, single_tries
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


def test_sqlite_artifacts_lie_beside_the_database_and_servers_decide_themselves() -> None:
    assert artifact_location("sqlite:////a/mlflow.db") == "file:///a/mlruns"
    assert artifact_location("http://tracking:5000") is None


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
