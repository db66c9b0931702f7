"""A driver that loses its run to another attempt has the last word about nothing: no model, no version, no alias."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mana_dist.config import Config, DataConfig, MlflowConfig, RunConfig
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import versions
from mana_dist.storage.lease import LostError
from mana_dist.train import ray_fit, run_record, run_training, validate_candidate
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.schedule import stages
from mana_dist.train.tracking.mlflow_run import Tracker
from tests.train.datasets import make_dataset

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, window=3, memory_slots=4)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run that is trained in no time."""
    make_dataset(str(tmp_path / "samples"), 4)
    run = Config(
        model=MODEL,
        data=DataConfig(path=str(tmp_path / "samples"), crop=12),
        run=RunConfig(name="one", storage=str(tmp_path / "runs")),
        mlflow=MlflowConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"),
    )

    def trained(*_: object) -> int:
        weights = Mana(MODEL).state_dict()
        moments = {f"exp_avg.{key}": value for key, value in weights.items()}
        Checkpoints(run).write(TrainState(stages(run)[-1].stop, weights, moments))
        return stages(run)[-1].stop

    monkeypatch.setattr(ray_fit, "start", lambda *_: None)
    monkeypatch.setattr(ray_fit, "fit", trained)
    return run


STEPS: list[tuple[Any, str, list[str]]] = [
    (ray_fit, "fit", []),
    (Tracker, "flush", ["model"]),
    (versions, "log_and_register", ["model", "version"]),
    (validate_candidate, "settle", ["model", "version", "alias"]),
]


@pytest.mark.parametrize(("module", "step", "left"), STEPS, ids=[name for _, name, _ in STEPS])
def test_what_comes_after_the_step_in_which_a_run_was_lost_is_not_done(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, left: list[str]
) -> None:
    done: Callable[..., Any] = getattr(module, step)

    def loses(*arguments: object) -> object:
        result = done(*arguments)
        (tmp_path / "runs" / "one" / ".lease").unlink()
        return result

    monkeypatch.setattr(module, step, loses)
    with pytest.raises(LostError, match=r"its \.lease is gone"):
        run_training.train(config)
    client = MlflowClient(config.mlflow.tracking_uri)
    versions = client.search_model_versions("")
    found = {
        "model": (tmp_path / "runs" / "one" / "model" / "model.safetensors").exists(),
        "version": bool(versions),
        "alias": any(client.get_model_version(found.name, found.version).aliases for found in versions),
    }
    assert [name for name, is_there in found.items() if is_there] == left
    assert '"registered": null' in (tmp_path / "runs" / "one" / "run.json").read_text()
    experiment = client.get_experiment_by_name(config.mlflow.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING"  # how it ends is the other attempt's to say


def test_a_ray_that_does_not_start_ends_the_run_in_mlflow(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise UserError("no Ray here")

    monkeypatch.setattr(ray_fit, "start", refuses)
    with pytest.raises(UserError, match="no Ray here"):
        run_training.train(config)
    record = run_record.load(config)
    assert record is not None
    assert MlflowClient(config.mlflow.tracking_uri).get_run(record.mlflow_run_id).info.status == "FAILED"


def test_ray_ends_where_mlflow_cannot_be_used(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(ray_fit, "start", lambda *_: calls.append("start"))
    monkeypatch.setattr(ray_fit, "stop", lambda: calls.append("stop"))
    nowhere = dataclasses.replace(config.mlflow, tracking_uri="sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(UserError, match=r"mlflow\.tracking_uri"):
        run_training.train(dataclasses.replace(config, mlflow=nowhere))
    assert calls == ["start", "stop"]
