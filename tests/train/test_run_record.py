"""A run's folder remembers its configuration and its MLflow run."""

import dataclasses
from pathlib import Path

import pytest

from mana_dist.config import Config, parse
from mana_dist.errors import UserError
from mana_dist.train import run_record
from mana_dist.train.run_record import RunRecord


def config(tmp_path: Path, *arguments: str) -> Config:
    return parse(["--config", "tiny", "--run.storage", str(tmp_path), "--run.name", "one", *arguments])


def test_a_new_run_is_bound_and_the_same_again_resumes(tmp_path: Path) -> None:
    assert run_record.bind_config(config(tmp_path)) is False
    assert run_record.bind_config(config(tmp_path)) is True


@pytest.mark.parametrize(
    "change",
    ["--run.workers=1", "--run.zero_stage=3", "--run.precision=bf16", "--run.log_every=7", "--mlflow.experiment=e"],
)
def test_what_moves_no_sample_may_change(tmp_path: Path, change: str) -> None:
    run_record.bind_config(config(tmp_path))
    assert run_record.bind_config(config(tmp_path, change)) is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model.channels=16", "model.channels 32, now it is 16"),
        ("--schedule.stage1.lr=0.5", "schedule.stage1.lr 0.001, now it is 0.5"),
        ("--data.batch_size=4", "data.batch_size 8, now it is 4"),
        ("--data.path=elsewhere", "data.path None"),
        ("--run.seed=1", "run.seed 0, now it is 1"),
    ],
)
def test_what_changes_the_training_is_refused(tmp_path: Path, change: str, message: str) -> None:
    run_record.bind_config(config(tmp_path))
    with pytest.raises(UserError, match=message):
        run_record.bind_config(config(tmp_path, change))


def test_the_record_comes_back(tmp_path: Path) -> None:
    assert run_record.load_record(config(tmp_path)) is None
    record = RunRecord("sqlite:///x", "abc")
    run_record.save_record(config(tmp_path), record)
    assert run_record.load_record(config(tmp_path)) == record
    finished = dataclasses.replace(record, registered_version="3")
    run_record.save_record(config(tmp_path), finished)
    assert run_record.load_record(config(tmp_path)) == finished
