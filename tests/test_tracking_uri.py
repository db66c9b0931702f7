"""The rule for the default tracking URI."""

from pathlib import Path

import pytest

from mana_dist.tracking_uri import artifact_location, resolve_tracking_uri


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
