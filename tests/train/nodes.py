"""A Ray cluster of this machine, started from the command line, each node with processes of its own."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from tests.cluster.hosts import HEALTH_CHECKS
from tests.ports import free_ports
from tests.train.trainings import PATIENCE

RAY = str(Path(sys.executable).with_name("ray"))


class Nodes:
    """A head node with a dashboard, and more nodes. Use as a context manager.

    Each node is a session of its own, so that nothing else is touched when it ends.

    Args:
        cpus: of the head.
    """

    def __init__(self, cpus: int) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self.environment = {**kept, **token, **HEALTH_CHECKS, "RAY_USAGE_STATS_ENABLED": "0"}
        self._cpus = cpus
        self._nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="ray-")  # short: socket paths in it must stay below 108 bytes
        port, dashboard = free_ports(2)
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        self._start(
            *["--head", f"--num-cpus={self._cpus}", f"--port={port}", f"--temp-dir={self._folder}"],
            *["--include-dashboard=true", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"],
        )
        self._wait_for_dashboard()
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self._nodes):
            if node.poll() is None:
                node.send_signal(signal.SIGTERM)
                node.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def driver_environment(self) -> dict[str, str]:
        """What a driver needs to join the cluster."""
        return {**self.environment, "RAY_ADDRESS": self.address}

    @property
    def folder(self) -> str:
        """Ray's folder of temporary files."""
        return self._folder

    def processes(self, title: str) -> list[int]:
        """Ids of the cluster's processes whose title begins with ``title``."""
        mark = f"RAY_AUTH_TOKEN={self.environment['RAY_AUTH_TOKEN']}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_ours = mark in (entry / "environ").read_bytes().split(b"\0")
                if is_ours and (entry / "cmdline").read_bytes().startswith(title.encode()):
                    found.append(int(entry.name))
        return found

    def add(self, cpus: int) -> "subprocess.Popen[bytes]":
        """One more node, once it has joined."""
        log = f"{self._folder}/node{len(self._nodes)}.log"
        node = self._start(f"--address={self.address}", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1")
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in Path(log).read_text(encoding="utf-8"):
            assert node.poll() is None, Path(log).read_text(encoding="utf-8")
            assert time.monotonic() < deadline, Path(log).read_text(encoding="utf-8")
            time.sleep(0.1)
        return node

    def kill(self, node: "subprocess.Popen[bytes] | None" = None) -> None:
        """SIGKILL for all processes of a node, by default the head."""
        node = node or self._nodes[0]
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def run(self, *arguments: str) -> str:
        """What ``ray ARGUMENTS`` says."""
        done = subprocess.run(
            [RAY, *arguments], env=self.driver_environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        # Another cluster of this machine may hold the default port; a node's agent then takes no jobs, for good.
        (agent,) = free_ports(1)
        arguments = (f"--dashboard-agent-listen-port={agent}", *arguments)
        with open(f"{self._folder}/node{len(self._nodes)}.log", "w", encoding="utf-8") as log:
            node = subprocess.Popen(
                [RAY, "start", "--block", "--disable-usage-stats", *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._nodes.append(node)
        return node

    def _wait_for_dashboard(self, seconds: float = PATIENCE) -> None:
        authorized = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self.dashboard}/api/version", headers=authorized)
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
