"""``--dry-run``: the plan's arithmetic, its checks, and that it starts nothing."""

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mana_dist.config import (
    Config,
    DataConfig,
    MlflowConfig,
    RunConfig,
    ScheduleConfig,
    StageConfig,
    parse,
)
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.train.planning.run_plan import Plan, describe, dry_run, make_plan, pace
from mana_dist.train.run_record import RunRecord
from mana_dist.train.tracking.events import Progress
from mana_dist.train.tracking.mlflow_run import Tracker, check_server
from tests.train.datasets import make_dataset

MODEL = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, window=3, memory_slots=4)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("plan") / "samples")
    make_dataset(folder, 10)
    return folder


def small(folder: Path, samples: str | None) -> Config:
    return Config(
        model=MODEL,
        schedule=ScheduleConfig(
            stage1=StageConfig(steps=20, lr=1e-3), stage2=StageConfig(steps=5), stage3=StageConfig(steps=10)
        ),
        data=DataConfig(path=samples, batch_size=5, crop=12),
        run=RunConfig(name="planned", storage=str(folder / "runs"), workers=2, precision="fp32", device="cpu"),
        mlflow=MlflowConfig(tracking_uri=f"sqlite:///{folder}/ml.db"),
    )


def test_the_papers_plan() -> None:
    """150,000 steps of 16 samples; 9.7 TFLOP a step with the attention (9.6 without, STACK.md)."""
    config = parse(["--config", "paper", "--run.workers", "4", "--run.zero_stage", "2"])
    plan = make_plan(config, samples=64_000)
    assert plan.parameters == 14_317_507
    assert [planned.stage.stop - planned.stage.start for planned in plan.stages] == [90_000, 30_000, 30_000]
    assert [planned.epochs for planned in plan.stages] == [22.5, 7.5, 7.5]
    assert plan.stages[0].step_flops == pytest.approx(9.7e12, rel=0.01)
    last = plan.stages[2].memory
    count = plan.parameters
    assert (last.weights, last.gradients, last.optimizer) == (2 * count, count, 3 * count)


def test_micro_batches_lower_the_activations(tmp_path: Path) -> None:
    whole = small(tmp_path, None)
    parts = dataclasses.replace(whole, run=dataclasses.replace(whole.run, micro_batch=1))
    one, other = make_plan(whole, 10), make_plan(parts, 10)
    assert (one.passes, other.passes) == (1, 3)  # the larger share of 5 over 2 workers is 3
    assert one.stages[0].memory.activations == 3 * other.stages[0].memory.activations
    assert one.stages[0].step_flops == other.stages[0].step_flops


def test_the_plan_in_words(tmp_path: Path) -> None:
    config = small(tmp_path, None)
    plan = make_plan(config, 10)
    lines = describe(config, plan)
    assert lines[0] == f"model: {sum(p.numel() for p in Mana(MODEL).parameters()):,} parameters"
    assert lines[1] == "batch: 5 crops of 12x12 over 2 worker(s); 10 samples an epoch, 2.0 steps"
    assert [line.split()[:3] for line in lines[3:]] == [["1", "20", "10.0"], ["2", "5", "2.5"], ["3", "10", "5.0"]]


def test_on_a_cpu_the_pace_is_measured_and_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = small(tmp_path, None)
    found = pace(config, make_plan(config, 10), None)
    assert found is not None
    assert found.source == "one sample measured on 1 thread(s) of this machine's CPU, without DeepSpeed"
    assert all(seconds > 0 for seconds in found.seconds.values())
    on_gpu = dataclasses.replace(config, run=dataclasses.replace(config.run, device="cuda"))
    assert pace(on_gpu, make_plan(on_gpu, 10), None) is None


def test_a_cluster_elsewhere_is_not_taken_for_this_machine(
    tmp_path: Path, samples: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for has_gpus_here in (0, 8):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=has_gpus_here: count)
        config = small(tmp_path, samples)
        dry_run(config)
        assert "one sample measured on 1 thread(s) of this machine's CPU" in capsys.readouterr().out
        dry_run(dataclasses.replace(config, run=dataclasses.replace(config.run, device="auto")))
        out = capsys.readouterr().out
        assert "if a worker's GPU reaches 100 TFLOP/s (the cluster at RAY_ADDRESS is not asked" in out
        assert "measured on" not in out


@pytest.mark.parametrize(("gpus", "is_measured"), [(0, True), (1, True), (2, False)])
def test_gpus_here_count_where_there_is_one_for_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, is_measured: bool
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    config = small(tmp_path, None)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, device="auto"))
    assert (pace(config, make_plan(config, 10), None) is not None) == is_measured


def test_a_runs_own_rate_is_used(tmp_path: Path) -> None:
    config = small(tmp_path, None)
    uri = f"sqlite:///{tmp_path}/ml.db"
    tracker = Tracker.open(config, uri, None)
    tracker.log(Progress(1, 2, 35, (0.5, 0.4), 1e-3, samples_per_second=2.5, data_wait=0.0, eta_seconds=0.0))
    tracker.close("KILLED")
    plan: Plan = make_plan(config, 10)
    found = pace(config, plan, RunRecord("", uri, tracker.run_id))
    assert found is not None
    assert found.source.startswith("from the run's own rate in stage 1")
    assert found.seconds[1] == pytest.approx(2.0)
    assert found.seconds[3] == pytest.approx(2.0 * plan.stages[2].step_flops / plan.stages[0].step_flops)


def test_nothing_is_started_nor_left_behind(
    tmp_path: Path, samples: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dry_run(small(tmp_path, samples))
    out = capsys.readouterr().out
    assert "data: " in out
    assert "10 samples in 1 shard(s)\nno validation\n" in out
    assert "expected time: " in out
    assert out.splitlines()[-1].startswith("dry run: data, storage and tracking server can be used")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_ray_is_not_even_imported(tmp_path: Path, samples: str) -> None:
    script = (
        "import sys; from mana_dist import config; from mana_dist.train.planning.run_plan import dry_run; "
        "dry_run(config.parse(sys.argv[1:])); "
        "assert not {'ray', 'deepspeed'} & set(sys.modules), 'too much'"
    )
    arguments = ["--config", "tiny", "--data.path", samples, "--data.crop", "16", "--run.storage", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_mistakes_are_found(tmp_path: Path, samples: str) -> None:
    config = small(tmp_path, samples)
    with pytest.raises(UserError, match="no finished sample dataset"):
        dry_run(small(tmp_path, str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="mlflow.tracking_uri nope://x cannot be used"):
        dry_run(dataclasses.replace(config, mlflow=MlflowConfig(tracking_uri="nope://x")))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="run.storage: cannot write"):
        dry_run(dataclasses.replace(config, run=dataclasses.replace(config.run, storage=str(tmp_path / "file"))))


@pytest.mark.parametrize("name", ["", "a/b:c", ".."])
def test_a_name_that_the_registry_refuses_is_reported_before_the_training(
    tmp_path: Path, samples: str, name: str
) -> None:
    config = small(tmp_path, samples)
    with pytest.raises(UserError, match="mlflow.registered_model '.*': MLflow refuses this name"):
        dry_run(dataclasses.replace(config, mlflow=dataclasses.replace(config.mlflow, registered_model=name)))


def test_a_deleted_experiment_is_reported_before_the_training(tmp_path: Path, samples: str) -> None:
    config = small(tmp_path, samples)
    client = MlflowClient(config.mlflow.tracking_uri)
    client.delete_experiment(client.create_experiment("mana"))
    with pytest.raises(UserError, match="experiment mana has been deleted; give another name, or bring it back with"):
        dry_run(config)
    with pytest.raises(UserError, match="experiment mana has been deleted"):
        Tracker.open(config, str(config.mlflow.tracking_uri), None)


def test_the_plan_shows_no_password(
    tmp_path: Path, samples: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mana_dist.train.tracking.mlflow_run.check_server", lambda *_: None)
    config = small(tmp_path, samples)
    dry_run(dataclasses.replace(config, mlflow=MlflowConfig(tracking_uri="http://ann:s3cret@host:5000")))
    assert "tracked in http://***@host:5000, experiment mana" in capsys.readouterr().out


def test_a_missing_or_cut_shard_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    make_dataset(str(folder), 10)
    (shard,) = folder.glob("*.parquet")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=rf"data.path: {shard.name} in .* has {len(whole) - 1} bytes"):
        dry_run(small(tmp_path, str(folder)))
    shard.unlink()
    with pytest.raises(UserError, match=f"lacks {shard.name}, which its manifest names"):
        dry_run(small(tmp_path, str(folder)))


def test_a_database_that_another_process_holds_is_one_line(tmp_path: Path) -> None:
    """A halted training keeps sqlite's lock for as long as it is halted."""
    MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("begin exclusive")
        with pytest.raises(UserError, match=r"mlflow\.db.* cannot be used \(database is locked\)"):
            check_server(f"sqlite:///{tmp_path}/mlflow.db?timeout=0", "mana")
