"""Training from a bucket: the same losses and weights when the server is killed, or with the run in a bucket too."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.s3.commands import Command
from tests.s3.seaweedfs import OWNER, SeaweedFS
from tests.train.trainings import history

STEPS = 200
OUTAGE = 8.0
"""Seconds."""
# Small enough for a test, yet it reads on and on: no cache beyond the row groups that are being shuffled.
CUT_DOWN = [
    *["--config", "tiny", "--model.channels", "8", "--model.encoder_blocks", "1", "--model.decoder_blocks", "1"],
    *["--model.window", "3", "--model.memory_slots", "4", "--run.workers", "2", "--run.log_every", "10"],
    *["--run.checkpoint_every", "50", "--data.batch_size", "4", "--data.crop", "24"],
    *["--run.precision", "fp32"],
    *["--data.cache_mb", "0", "--data.shuffle_groups", "1", "--data.prefetch", "1"],
    *["--schedule.stage1.steps", "100", "--schedule.stage2.steps", "50", "--schedule.stage3.steps", "50"],
]


@dataclass(frozen=True)
class Result:
    """What a training came to."""

    losses: dict[int, float]
    weights: bytes


def train(server: SeaweedFS, data: str, folder: Path, name: str, *more: str) -> Command:
    """The training, running; what is not in the bucket lies in ``folder``."""
    arguments = ["mana_dist.train", *CUT_DOWN, "--data.path", data, "--run.name", name, *more]
    return Command(*arguments, folder=folder, environment=OWNER.environment(server.endpoint))


def local_result(folder: Path, name: str) -> Result:
    weights = (folder / "runs" / name / "model" / "model.safetensors").read_bytes()
    return Result(history(folder, name, "train/loss"), weights)


@pytest.fixture(scope="module")
def undisturbed(server: SeaweedFS, dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("undisturbed")
    with train(server, dataset, folder, "whole") as command:
        command.succeed()
    result = local_result(folder, "whole")
    assert sorted(result.losses) == list(range(1, STEPS + 1))
    return result


def test_a_server_that_is_away_for_eight_seconds_changes_no_loss(
    server: SeaweedFS, dataset: str, undisturbed: Result, tmp_path: Path
) -> None:
    with train(server, dataset, tmp_path, "outage") as command:
        command.wait_for(r"step +50/200")
        still_down = server.outage(OUTAGE)
        assert command.running, command.told()
        reached = [int(step) for step in re.findall(r"step +(\d+)/200", command.output)]
        output = command.succeed()
    # In the middle: training ran dry while the server was away, and went on without a restart.
    assert reached[-1] < STEPS
    assert command.lines_between(still_down - OUTAGE / 4, still_down) == []
    assert output.count("starting: ") == 1
    assert "resuming" not in output
    assert "failed" not in output
    assert local_result(tmp_path, "outage") == undisturbed


def test_a_run_in_a_bucket_resumes_from_there(
    server: SeaweedFS, dataset: str, undisturbed: Result, tmp_path: Path
) -> None:
    """With decoded samples kept on the local disk, too: neither moves a loss."""
    arguments = ["--run.storage", "s3://runs/kept", "--data.disk_cache", str(tmp_path / "cache")]
    with train(server, dataset, tmp_path, "remote", *arguments) as command:
        command.wait_for(r"checkpoint at step 100\b")
        command.kill()
    assert list((tmp_path / "cache").rglob("*"))
    with train(server, dataset, tmp_path, "remote", *arguments) as command:
        output = command.succeed()
    resumed = re.search(r"resuming after step (\d+): 2 worker", output)
    assert resumed is not None, output
    assert int(resumed[1]) >= 50
    model = server.read("runs", "kept/remote/model/model.safetensors")
    assert Result(history(tmp_path, "remote", "train/loss"), model) == undisturbed
