"""What a store refuses is told in one line that names the URI or the key, with exit code 2."""

from pathlib import Path

import pytest

from tests.s3.commands import refusal
from tests.s3.conftest import Clip
from tests.s3.seaweedfs import OWNER, READER, STRANGER, Identity, SeaweedFS

PLAIN = "s3://clips/takes/plain/a.mp4"


@pytest.mark.parametrize(
    ("who", "source", "out", "named", "why"),
    [
        (OWNER, "s3://no-such-bucket/a.mp4", "s3://samples/x", "s3://no-such-bucket/a.mp4", "does not exist"),
        (OWNER, "s3://clips/takes/gone.mp4", "s3://samples/x", "s3://clips/takes/gone.mp4", "does not exist"),
        (OWNER, PLAIN, "s3://no-such-bucket/x", "--out: cannot write to s3://no-such-bucket/x", ""),
        (READER, PLAIN, "s3://samples/x", "--out: cannot write to s3://samples/x", "AccessDenied"),
        (STRANGER, PLAIN, "s3://samples/x", "s3://samples/x", "InvalidAccessKeyId"),
    ],
)
def test_ingest(
    server: SeaweedFS, clips: list[Clip], tmp_path: Path, who: Identity, source: str, out: str, named: str, why: str
) -> None:
    arguments = ["mana_dist.ingest", "--source", source, "--out", out]
    line = refusal(*arguments, folder=tmp_path, environment=who.environment(server.endpoint))
    assert named in line
    assert why in line


@pytest.mark.parametrize(
    ("who", "data", "storage", "named"),
    [
        (OWNER, "s3://no-such-bucket/samples", "runs", "s3://no-such-bucket/samples"),
        (OWNER, "s3://samples/nothing-here", "runs", "s3://samples/nothing-here"),
        (STRANGER, "s3://samples/undisturbed", "runs", "s3://samples/undisturbed"),
        (OWNER, "s3://samples/undisturbed", "s3://no-such-bucket/runs", "run.storage: cannot write to"),
        (READER, "s3://samples/undisturbed", "s3://runs", "run.storage: cannot write to s3://runs"),
    ],
)
def test_training(
    server: SeaweedFS, dataset: str, tmp_path: Path, who: Identity, data: str, storage: str, named: str
) -> None:
    arguments = ["mana_dist.train", "--config", "tiny", "--data.path", data, "--run.storage", storage]
    assert named in refusal(*arguments, folder=tmp_path, environment=who.environment(server.endpoint))
