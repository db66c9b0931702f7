"""A run's folder remembers its configuration, its data and its MLflow run."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from mana_dist.config import Config, RunConfig, parse, to_mapping
from mana_dist.data import order
from mana_dist.data.manifest import Manifest, load_manifest
from mana_dist.data.mixture import Dataset, Mixture, fingerprint
from mana_dist.errors import UserError
from mana_dist.model.precision import PrecisionChoice
from mana_dist.published_keys import tracked
from mana_dist.train import run_record
from mana_dist.train.planning.run_plan import with_precision
from mana_dist.train.run_record import RunRecord
from tests.train.datasets import make_dataset


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = str(tmp_path_factory.mktemp("samples"))
    make_dataset(folder, 6)
    return load_manifest(folder)


def config(tmp_path: Path, *arguments: str) -> Config:
    return parse(["--config", "tiny", "--run.storage", str(tmp_path), "--run.name", "one", *arguments])


def mixture(manifest: Manifest) -> Mixture:
    return (Dataset("samples", manifest),)


def started(tmp_path: Path, manifest: Manifest) -> RunRecord:
    record = RunRecord(fingerprint(mixture(manifest)), "sqlite:///x", "abc")
    run_record.save(config(tmp_path), record)
    return record


def test_the_record_comes_back(tmp_path: Path, manifest: Manifest) -> None:
    assert run_record.load(config(tmp_path)) is None
    record = started(tmp_path, manifest)
    assert run_record.load(config(tmp_path)) == record
    finished = dataclasses.replace(record, registered="models:/mana-x4/3")
    run_record.save(config(tmp_path), finished)
    assert run_record.load(config(tmp_path)) == finished


@pytest.mark.parametrize(
    "change",
    [
        *["--run.workers=1", "--run.zero_stage=3", "--run.precision=bf16", "--run.log_every=7"],
        *["--mlflow.experiment=e", "--data.cache_mb=7", "--run.seed=0", "--data.path=moved"],
        *["--data.readers=5", "--data.disk_cache=cache", "--data.disk_cache_mb=9"],
    ],
)
def test_what_moves_no_sample_may_change(tmp_path: Path, manifest: Manifest, change: str) -> None:
    record = started(tmp_path, manifest)
    run_record.check_same_training(config(tmp_path, change), mixture(manifest), record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model.channels=16", "model.channels 32, now it is 16"),
        ("--schedule.stage1.lr=0.5", "schedule.stage1.lr 0.001, now it is 0.5"),
        ("--schedule.loss=charbonnier", "schedule.loss l1, now it is charbonnier"),
        ("--data.reverse=true", "data.reverse False, now it is True"),
        ("--run.ema=0.9", "run.ema 0.0, now it is 0.9"),
        ("--schedule.stage3.decay=cosine", "schedule.stage3.decay constant, now it is cosine"),
        ("--data.batch_size=4", "data.batch_size 8, now it is 4"),
        ("--run.seed=1", "run.seed 0, now it is 1"),
    ],
)
def test_what_changes_the_training_is_refused(tmp_path: Path, manifest: Manifest, change: str, message: str) -> None:
    record = started(tmp_path, manifest)
    with pytest.raises(UserError, match=message):
        run_record.check_same_training(config(tmp_path, change), mixture(manifest), record)


def test_a_run_from_before_a_key_goes_on_with_the_default_of_it(tmp_path: Path, manifest: Manifest) -> None:
    begun = started(tmp_path, manifest)
    kept = json.loads((tmp_path / "one" / "run.json").read_text())
    del kept["init"]
    (tmp_path / "one" / "run.json").write_text(json.dumps(kept))
    record = run_record.load(config(tmp_path))
    assert record == begun
    file = tmp_path / "one" / "config.yaml"
    values = yaml.safe_load(file.read_text())
    del values["schedule"]["loss"], values["data"]["reverse"]
    del values["run"]["init"], values["run"]["ema"], values["run"]["keep_best"]
    for stage in values["schedule"].values():
        del stage["decay"], stage["warmup"]
    file.write_text(yaml.safe_dump(values))
    run_record.check_same_training(config(tmp_path), mixture(manifest), record)
    with pytest.raises(UserError, match=r"schedule\.stage1\.warmup 0, now it is 9"):
        run_record.check_same_training(config(tmp_path, "--schedule.stage1.warmup=9"), mixture(manifest), record)


def test_data_that_changed_since_the_start_are_refused(tmp_path: Path, manifest: Manifest) -> None:
    """An appended clip would move every sample of the order."""
    record = started(tmp_path, manifest)
    grown = dataclasses.replace(manifest, shards=(*manifest.shards, *manifest.shards))
    with pytest.raises(UserError, match="changed since it was started"):
        run_record.check_same_training(config(tmp_path), mixture(grown), record)


def test_a_run_of_another_sample_order_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    """One that says so, and one from before there were versions; never silently reordered."""
    record = started(tmp_path, manifest)
    file = tmp_path / "one" / "run.json"
    values = json.loads(file.read_text())
    assert values["order"] == order.VERSION
    for version, content in [(1, values | {"order": None}), (99, values | {"order": 99})]:
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        loaded = run_record.load(config(tmp_path))
        assert loaded == dataclasses.replace(record, order=version)
        with pytest.raises(UserError, match=f"run one was begun with version {version} of the sample order"):
            run_record.check_same_training(config(tmp_path), mixture(manifest), loaded)


def test_a_password_is_not_kept_and_may_change(tmp_path: Path, manifest: Manifest) -> None:
    arguments = ["--mlflow.tracking_uri", "http://ann:s3cret@host:5000"]
    begun = config(tmp_path, *arguments)
    run_record.save(begun, RunRecord("", "http://ann:s3cret@host:5000", "abc"))
    for path in (tmp_path / "one").iterdir():
        assert "s3cret" not in path.read_text(), path
    record = run_record.load(begun)
    assert record is not None
    assert record.is_tracked_in("http://ann:another@host:5000")
    assert not record.is_tracked_in("http://ann:s3cret@other:5000")
    older = RunRecord("", "http://ann:s3cret@host:5000", "abc")  # as older versions wrote it
    assert older.is_tracked_in("http://ann:another@host:5000")


def test_a_run_keeps_the_precision_that_it_began_with(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    """Begun on a processor that gains by bf16, resumed on one that does not."""
    caplog.set_level("INFO")

    def choose(run: RunConfig) -> PrecisionChoice:
        return PrecisionChoice("bf16", "AMX")

    def refuse(run: RunConfig) -> PrecisionChoice:
        raise AssertionError("a run that goes on asks no processor")

    begun = with_precision(config(tmp_path, "--run.precision=auto"), None, choose)
    assert (begun.run.arithmetic, tracked(to_mapping(begun))["run"]["precision"]) == ("bf16", "bf16")
    record = RunRecord(fingerprint(mixture(manifest)), "sqlite:///x", "abc")
    run_record.save(begun, record)
    resumed = with_precision(config(tmp_path, "--run.precision=auto"), record, refuse)
    assert resumed == begun
    assert caplog.messages == ["precision: bf16 (AMX)", "precision: bf16 (as the run began)"]
    assert with_precision(config(tmp_path, "--run.precision=fp32"), record, refuse).run.arithmetic == "fp32"


def test_nothing_is_computed_in_a_precision_that_is_not_decided(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.precision auto"):
        _ = config(tmp_path, "--run.precision=auto").run.arithmetic
