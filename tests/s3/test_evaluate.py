"""The same footage on disk and in a bucket, read and reported there, gives the same numbers to the last bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mana_dist.data.degradation import BI, degrade
from tests.evaluate.footage import frames_of, write_folder
from tests.s3.commands import Command, refusal
from tests.s3.seaweedfs import OWNER, READER, SeaweedFS

CLIPS = {"calendar": 3, "a walk #1": 4}
SETTINGS = ["--method", "bicubic", "--degradation", "BI", "--top-motion", "50%"]


@pytest.fixture(scope="module")
def footage(server: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of frames on disk (set) and in the bucket (s3://clips/set), with LR frames beside them."""
    folder = tmp_path_factory.mktemp("footage")
    for seed, (name, length) in enumerate(CLIPS.items()):
        frames = frames_of(length, seed)
        write_folder(folder / "set" / "GT" / name, frames)
        write_folder(folder / "set" / "BIx4" / name, degrade(np.ascontiguousarray(frames), BI))
    client = server.client()
    for path in sorted((folder / "set").rglob("*.png")):
        client.upload_file(str(path), "clips", str(path.relative_to(folder)))
    return folder


def evaluate(server: SeaweedFS, folder: Path, *arguments: str) -> str:
    environment = OWNER.environment(server.endpoint)
    with Command("mana_dist.evaluate", *SETTINGS, *arguments, folder=folder, environment=environment) as command:
        return command.succeed()


def means(text: bytes) -> str:
    """The means as they stand in the file."""
    report: dict[str, Any] = json.loads(text)
    return json.dumps([report["methods"], report["top_motion"]])


def test_disk_and_bucket_at_one_and_two_workers(server: SeaweedFS, footage: Path) -> None:
    evaluate(server, footage, "--data", "set", "--out", "local", "--workers", "1")
    output = evaluate(server, footage, "--data", "s3://clips/set", "--out", "s3://runs/evaluated", "--workers", "2")
    assert "LR given: BIx4" in output
    assert "s3://runs/evaluated/metrics.json" in output
    local = (footage / "local" / "metrics.json").read_bytes()
    remote = server.read("runs", "evaluated/metrics.json")
    assert means(local) == means(remote)
    digests = [json.loads(text)["protocol"]["datasets"][0]["digest"] for text in (local, remote)]
    assert digests[0] == digests[1]
    assert {"metrics.json", "report.md", "report.html"} <= set(server.keys("runs", "evaluated/"))


def test_another_methods_frames_in_a_bucket(server: SeaweedFS, footage: Path) -> None:
    arguments = ["--data", "s3://clips/set", "--method", "frames:truth=s3://clips/set/GT", "--out", "out"]
    evaluate(server, footage, *arguments, "--workers", "1")
    report = json.loads((footage / "out" / "metrics.json").read_text())
    assert report["methods"]["truth"]["mean"]["ssim_rgb"] == 1


@pytest.mark.parametrize(
    ("data", "out", "named"),
    [
        ("s3://no-such-bucket/set", "out", "--data s3://no-such-bucket/set"),
        ("s3://clips/nothing-here", "out", "--data s3://clips/nothing-here: no such file or folder"),
        ("s3://clips/set", "s3://runs/x", "--out: cannot write to s3://runs/x"),
    ],
)
def test_what_a_store_refuses(
    server: SeaweedFS, footage: Path, tmp_path: Path, data: str, out: str, named: str
) -> None:
    arguments = ["mana_dist.evaluate", *SETTINGS, "--data", data, "--out", out]
    assert named in refusal(*arguments, folder=tmp_path, environment=READER.environment(server.endpoint))
