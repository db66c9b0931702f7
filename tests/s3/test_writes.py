"""Objects are published by the end of their upload: never seen before, never copied, whatever their size."""

import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mana_dist import storage
from mana_dist.data.samples import Sample, ShardWriter
from mana_dist.storage import s3
from tests.s3.seaweedfs import OWNER, STRANGER, SeaweedFS

MEGABYTE = 2**20
CONTENT = random.Random(0).randbytes(40 * MEGABYTE)  # two parts and a half


@pytest.fixture
def requests(server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The operations that this process's writer asks the store for, as they go out."""
    for name, value in OWNER.environment(server.endpoint).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    sent: list[str] = []

    def record(model: Any, **_: Any) -> None:
        sent.append(model.name)

    events = s3.client().meta.events
    events.register("before-call.s3", record)
    yield sent
    events.unregister("before-call.s3", record)


def uploads(server: SeaweedFS, prefix: str) -> list[str]:
    """The keys of unfinished uploads."""
    found = server.client().list_multipart_uploads(Bucket="runs", Prefix=prefix)
    return [item["Key"] for item in found.get("Uploads", [])]


def test_a_large_object_appears_at_its_end_and_is_not_copied(server: SeaweedFS, requests: list[str]) -> None:
    with storage.open_write("s3://runs/large/a b#1") as stream:
        for begin in range(0, len(CONTENT), 3 * MEGABYTE):
            stream.write(CONTENT[begin : begin + 3 * MEGABYTE])
            assert server.keys("runs", "large/") == []
        assert uploads(server, "large/") == ["large/a b#1"]
    assert server.keys("runs", "large/") == ["a b#1"]
    assert hashlib.sha256(server.read("runs", "large/a b#1")).digest() == hashlib.sha256(CONTENT).digest()
    assert uploads(server, "large/") == []
    assert sorted(requests) == ["CompleteMultipartUpload", "CreateMultipartUpload", *3 * ["UploadPart"]]


@pytest.mark.parametrize("size", [0, 1, MEGABYTE])
def test_a_small_object_is_one_request(server: SeaweedFS, requests: list[str], size: int) -> None:
    storage.write_bytes(f"s3://runs/small/{size}", CONTENT[:size])
    assert server.read("runs", f"small/{size}") == CONTENT[:size]
    assert requests == ["PutObject"]


@pytest.mark.parametrize("size", [MEGABYTE, len(CONTENT)])
def test_a_failed_write_leaves_the_old_object_and_no_upload(server: SeaweedFS, requests: list[str], size: int) -> None:
    storage.write_bytes("s3://runs/failed/object", b"old")

    def breaks_off() -> None:
        with storage.open_write("s3://runs/failed/object") as stream:
            stream.write(CONTENT[:size])
            raise InterruptedError

    with pytest.raises(InterruptedError):
        breaks_off()
    assert server.keys("runs", "failed/") == ["object"]
    assert server.read("runs", "failed/object") == b"old"
    assert uploads(server, "failed/") == []
    assert "CopyObject" not in requests


KILLED = """
import sys
from mana_dist import storage
with storage.open_write("s3://runs/killed/object") as stream:
    stream.write(bytes(40 * 2**20))
    print("written", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_leaves_nothing_that_can_be_seen(server: SeaweedFS, tmp_path: Path) -> None:
    environment = OWNER.environment(server.endpoint)
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert server.keys("runs", "killed/") == []
    assert uploads(server, "killed/") == ["killed/object"]  # what a lifecycle rule deletes


def test_a_shard_appears_whole(server: SeaweedFS, requests: list[str]) -> None:
    noise = np.random.default_rng(0)
    with ShardWriter("s3://runs/shards", stem="clip", unit="clip", group_bytes=MEGABYTE) as writer:
        for _ in range(100):  # 23 MB
            lr, hr = (noise.integers(0, 256, shape, np.uint8) for shape in ((3, 64, 64, 3), (256, 256, 3)))
            writer.add(Sample(lr, hr, centre=1, flow=0.0), clip="clip", source="clip")
            assert server.keys("runs", "shards/") == []
        (shard,) = writer.close()
    assert server.keys("runs", "shards/") == [shard.path]
    assert len(server.read("runs", f"shards/{shard.path}")) == shard.bytes
    assert set(requests) == {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}


def test_what_a_store_refuses_is_an_os_error(
    server: SeaweedFS, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"", CONTENT):
        with pytest.raises(FileNotFoundError, match="s3://nowhere/x"):
            storage.write_bytes("s3://nowhere/x", data)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", STRANGER.access_key)
    for data in (b"", CONTENT):
        with pytest.raises(PermissionError, match="s3://runs/x"):
            storage.write_bytes("s3://runs/x", data)
