"""Ray on several hosts of this machine: each has its own network, processes, name, /tmp/ray and /dev/shm.

The hosts are Linux namespaces joined by a bridge, so a host can die (all its processes at once) and its link can be
cut, as in a real cluster. Files are shared, as over NFS. Needs root.
"""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_SUBNET = "10.78.0"
_HEAD = "head"

HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""For the head: a node that does not answer is dead after about nine seconds; Ray's defaults take a minute."""


def unavailable() -> str:
    """Why this machine cannot have such hosts; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of their own need Linux and root"
    missing = [tool for tool in ("ip", "unshare", "nsenter", "mount", "setsid", "pgrep") if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "this machine does not allow namespaces"


class Hosts:
    """A Ray head without CPUs for work, and workers; as a context manager, gone without a trace at the end.

    Args:
        folder: for the hosts' own files.
        workers: names of the worker hosts, at most five letters each.
        cpus: of each worker host.
    """

    def __init__(self, folder: Path, workers: Sequence[str], cpus: int) -> None:
        self._folder, self._cpus = folder, cpus
        self._names = [_HEAD, *workers]
        self._tag = secrets.token_hex(2)
        self._bridge = f"br{self._tag}"
        self._inits: dict[str, subprocess.Popen[bytes]] = {}
        self._token = secrets.token_hex(32)

    def __enter__(self) -> Self:
        try:
            _run("ip", "link", "add", self._bridge, "type", "bridge")
            _run("ip", "addr", "add", f"{_SUBNET}.1/24", "dev", self._bridge)
            _run("ip", "link", "set", self._bridge, "up")
            for name in self._names:
                self._plug_in(name)
                self._boot(name)
                self.start_ray(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self.kill(name)
            _run("ip", "netns", "del", self._netns(name), check=False)
            _run("ip", "link", "del", self._link(name), check=False)
        _run("ip", "link", "del", self._bridge, check=False)

    @property
    def address(self) -> str:
        """For ``RAY_ADDRESS``."""
        return f"{self.ip(_HEAD)}:6379"

    def ip(self, name: str) -> str:
        """A host's address."""
        return f"{_SUBNET}.{10 + self._names.index(name)}"

    @property
    def driver_environment(self) -> dict[str, str]:
        """What a driver on the head needs."""
        return {**self._settings(), "RAY_ADDRESS": self.address}

    def on_head(self) -> list[str]:
        """Command that runs another one on the head, in the same working folder."""
        return self._inside(_HEAD, [])

    def start_ray(self, name: str) -> None:
        """Start Ray on a host; one that was killed is booted first."""
        if name not in self._inits:
            self._boot(name)
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={self.ip(name)}"]
        ray += ["--object-store-memory=160000000"]
        if name == _HEAD:
            ray += ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats"]
        else:
            ray += [f"--address={self.address}", f"--num-cpus={self._cpus}"]
        done = subprocess.run(
            self._inside(name, ["setsid", *ray]),
            env=self._environment(HEALTH_CHECKS),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ray did not start on {name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def kill(self, name: str) -> None:
        """The host dies at once, with all its processes."""
        unshare = self._inits.pop(name, None)
        if unshare is not None:
            for child in _children(unshare.pid):
                os.kill(child, signal.SIGKILL)
            unshare.kill()
            unshare.wait()

    def cut(self, name: str) -> None:
        """Pull the host's cable."""
        _run("ip", "link", "set", self._link(name), "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", self._link(name), "up")

    def _plug_in(self, name: str) -> None:
        netns, link = self._netns(name), self._link(name)
        _run("ip", "netns", "add", netns)
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", netns)
        _run("ip", "link", "set", link, "master", self._bridge, "up")
        _run("ip", "-n", netns, "addr", "add", f"{self.ip(name)}/24", "dev", "eth0")
        _run("ip", "-n", netns, "link", "set", "eth0", "up")
        _run("ip", "-n", netns, "link", "set", "lo", "up")

    def _boot(self, name: str) -> None:
        """Start the host's first process; the host lives as long as it does."""
        folder = self._folder / name
        (folder / "ray").mkdir(parents=True, exist_ok=True)
        ready = folder / "ready"
        ready.unlink(missing_ok=True)
        hosts = "127.0.0.1 localhost\n" + "".join(f"{self.ip(host)} {host}\n" for host in self._names)
        (folder / "hosts").write_text(hosts)
        script = (
            f"hostname {name} && mount -t tmpfs -o size=1g tmpfs /dev/shm && mkdir -p /tmp/ray"
            f" && mount --bind '{folder}/ray' /tmp/ray && mount --bind '{folder}/hosts' /etc/hosts"
            f" && touch '{ready}'; while :; do sleep 1000 & wait $!; done"
        )
        unshare = [
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            script,
        ]
        self._inits[name] = subprocess.Popen(
            ["ip", "netns", "exec", self._netns(name), *unshare],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (nothing else runs yet)
        )
        deadline = time.monotonic() + 120
        while not ready.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"host {name} did not come up")
            time.sleep(0.02)

    def _inside(self, name: str, command: Sequence[str]) -> list[str]:
        entered = ["nsenter", "-t", str(self._init(name)), "-m", "-n", "-u", "-p", "--wd=."]  # else it were /
        return [*entered, "--", *command]

    def _init(self, name: str) -> int:
        return _children(self._inits[name].pid)[0]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, **self._settings(), **more}

    def _settings(self) -> dict[str, str]:
        # Only hosts that are told so use the token, so every one is.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}
        interfaces = dict.fromkeys(("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), "eth0")
        return {**token, **interfaces, "RAY_USAGE_STATS_ENABLED": "0"}

    def _netns(self, name: str) -> str:
        return f"mana{self._tag}-{name}"

    def _link(self, name: str) -> str:
        return f"v{self._tag}{name}"


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _die_with_parent() -> None:
    """Called in the new process: a test run that is killed leaves no host behind."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
