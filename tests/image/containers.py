"""Containers of the built images, run by crun as a kubelet would have them run: by the words of a pod's description.

Taken from it are the user, the read-only root, capabilities, environment, volumes and the command. Not tried are limits
of CPU and memory and seccomp's profile. All containers share this process's network, which has loopback alone
(`make test-image`), as do the containers of one pod.
"""

import contextlib
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.k8s.manifests import Document, quantity

ADDRESS = "10.79.0.1"  # of all pods
HOSTS = ("seaweedfs", "postgres", "mlflow")
# crun knows no machine that has both kinds of cgroups, and needs none here: it sees one of the second kind.
_CRUN = 'mount -t cgroup2 none /sys/fs/cgroup && exec crun --cgroup-manager=disabled "$@"'
_HIDDEN = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
_FIXED = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def crun(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = ["unshare", "--mount", "sh", "-c", _CRUN, "crun", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes:
        root: where its files can be seen.
        about: what `buildah inspect` says of it.
    """

    root: Path
    about: Document = field(repr=False)

    @property
    def config(self) -> Document:
        found: Document = self.about["OCIv1"]["config"]
        return found

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])


@contextlib.contextmanager
def mounted(name: str) -> Iterator[Image]:
    """An image of this machine's store, with its files to be seen as long as the block lasts."""
    about = json.loads(_buildah("inspect", "--type", "image", f"localhost/{name}"))
    container = _buildah("from", "--pull-never", f"localhost/{name}").strip()
    try:
        yield Image(Path(_buildah("mount", container).strip()), about)
    finally:
        _buildah("umount", container)
        _buildah("rm", container)


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


@dataclass
class Pod:
    """A pod on this machine.

    Args:
        name: also of its host.
        spec: as Kubernetes has it.
        image: of its containers.
        data: of ConfigMaps and Secrets, by name.
        folder: for its volumes and logs, short.
    """

    name: str
    spec: Document
    image: Image
    data: Mapping[str, Mapping[str, str]]
    folder: Path
    _running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        lines = [f"127.0.0.1 localhost {' '.join(HOSTS)}", f"{ADDRESS} {self.name}", ""]
        (self.folder / "hosts").write_text("\n".join(lines))

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_: object) -> None:
        for name, process in self._running.items():
            crun("delete", "--force", self._id(name))
            process.wait(60)
        shutil.rmtree(self.folder)

    def run_first(self) -> None:
        """Its init containers, one after the other."""
        for box in self.spec.get("initContainers", []):
            self.start(box["name"])
            assert self.ended(box["name"]) == 0, self.log(box["name"])

    def start(
        self, name: str, command: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a container of it.

        Args:
            name: of the container.
            command: instead of its own.
            environment: what comes to its own.
        """
        (box,) = [
            box for key in ("initContainers", "containers") for box in self.spec.get(key, []) if box["name"] == name
        ]
        bundle = self.folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._bundle(box, command, environment or {})))
        with open(bundle / "log", "wb") as log:
            run = ["unshare", "--mount", "sh", "-c", _CRUN, "crun", "run", "--bundle", str(bundle), self._id(name)]
            self._running[name] = subprocess.Popen(run, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self._running[name]

    def log(self, name: str) -> str:
        """What a container has written."""
        return (self.folder / name / "log").read_text(errors="replace")

    def run(self, name: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """`kubectl exec`, also what a probe with a command does."""
        user = f"{self._user['uid']}:{self._user['gid']}"
        return crun("exec", "--user", user, self._id(name), *command)

    def stop(self, name: str) -> None:
        """What a kubelet begins a pod's end with: SIGTERM to a container's first process."""
        self._first(name).send_signal(signal.SIGTERM)

    def signal_all(self, name: str, number: signal.Signals) -> None:
        """A signal to every process of a container."""
        first = self._first(name)
        for process in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def ended(self, name: str, seconds: float = 300) -> int:
        """A container's exit code, once it has ended."""
        return self._running[name].wait(seconds)

    def _first(self, name: str) -> psutil.Process:
        return psutil.Process(json.loads(crun("state", self._id(name)).stdout)["pid"])

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = 300) -> None:
        """Until something is so, as long as a container runs."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert self._running[name].poll() is None, self.log(name)[-4000:]
            assert time.monotonic() < deadline, self.log(name)[-4000:]
            time.sleep(0.5)

    def _id(self, name: str) -> str:
        return f"mana-test-{os.getpid()}-{self.name}-{name}"

    @property
    def _user(self) -> dict[str, int]:
        context = self.spec["securityContext"]
        return {"uid": context["runAsUser"], "gid": context["runAsGroup"]}

    def _bundle(self, box: Document, command: Sequence[str], more: Mapping[str, str]) -> Document:
        environment = {**self.image.environment, **self._environment(box), **more}
        told: list[str] = box.get("command", []) + box.get("args", [])
        words = [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], word) for word in told]
        context, files = box["securityContext"], resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        hosts = _bind(self.folder / "hosts", "/etc/hosts", "ro")
        assert context["capabilities"] == {"drop": ["ALL"]}
        return {
            "ociVersion": "1.0.2",
            "hostname": self.name,
            "root": {"path": str(self.image.root), "readonly": context["readOnlyRootFilesystem"]},
            "process": {
                "user": self._user,
                "args": list(command) or words,
                "env": [f"{name}={value}" for name, value in environment.items()],
                "cwd": self.image.config.get("WorkingDir") or "/",
                "capabilities": {},
                "noNewPrivileges": not context["allowPrivilegeEscalation"],
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": files, "soft": files}],
            },
            "mounts": [*_system(), hosts, *map(self._mount, box["volumeMounts"])],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "maskedPaths": list(_HIDDEN),
                "readonlyPaths": list(_FIXED),
            },
        }

    def _environment(self, box: Document) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in box.get("envFrom", []):
            ((_, reference),) = source.items()
            found |= self.data[reference["name"]]
        for variable in box.get("env", []):
            if "value" in variable:
                found[variable["name"]] = variable["value"]
                continue
            ((_, reference),) = variable["valueFrom"].items()
            value = self.data[reference["name"]].get(reference["key"])
            assert value is not None or reference.get("optional"), reference
            if value is not None:
                found[variable["name"]] = value
        return found

    def _mount(self, mount: Document) -> Document:
        (volume,) = [volume for volume in self.spec["volumes"] if volume["name"] == mount["name"]]
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            size = int(quantity(volume["emptyDir"]["sizeLimit"]))
            options = ["nosuid", "nodev", "mode=1777", f"size={size}"]
            return {"destination": mount["mountPath"], "type": "tmpfs", "source": "tmpfs", "options": options}
        folder = self.folder / f"volume-{mount['name']}"
        folder.mkdir(exist_ok=True)
        if "configMap" in volume:
            for item in volume["configMap"]["items"]:
                (folder / item["path"]).write_text(self.data[volume["configMap"]["name"]][item["key"]])
        else:
            assert "emptyDir" in volume
            os.chown(folder, 0, self.spec["securityContext"]["fsGroup"])
            folder.chmod(0o2777)
        return _bind(folder, mount["mountPath"], "ro" if mount.get("readOnly") else "rw")


def _bind(source: Path, destination: str, mode: str) -> Document:
    options = ["bind", mode, "nosuid", "nodev"]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


@functools.cache
def _system() -> tuple[Document, ...]:
    """What every container has of the kernel."""
    devices = ["nosuid", "strictatime", "mode=755", "size=65536k"]
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    closed = ["nosuid", "noexec", "nodev"]
    return (
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": devices},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": terminals},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*closed, "mode=1777", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*closed, "ro"]},
    )
