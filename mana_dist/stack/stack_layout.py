"""Where a local stack lies, its ports and its passwords."""

import contextlib
import dataclasses
import json
import os
import random
import secrets
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mana_dist.errors import UserError

BUCKET = "mana"
PORTS = (
    *("postgres", "mlflow", "s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc"),
    *("admin", "admin.grpc", "gcs", "dashboard", "dashboard-agent", "client"),
)
SECRETS = ("postgres", "mlflow", "flask", "s3-access", "s3-secret", "ray")

_FILE = "stack.json"
_ENVIRONMENT = "env.sh"
_LOCK = "lock"
_BEGUN = {_LOCK, f"{_FILE}.tmp"}  # what lies in a folder before _FILE does
# Below the range from which the system takes ports for outgoing connections, and above those of Ray's workers.
_RANGE = range(20_000, 32_000)
# Ray's sockets are "<folder>/ray/session_<date>_<pid>/sockets/plasma_store", 107 bytes at most.
_LONGEST = 107 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")


@dataclass(frozen=True)
class Layout:
    """All that has to be known of a stack. Every server listens on 127.0.0.1 alone.

    Attributes:
        folder: absolute; holds all of its files.
        ports: by the names of PORTS.
        passwords: by the names of SECRETS.
    """

    folder: Path
    ports: dict[str, int]
    passwords: dict[str, str] = dataclasses.field(repr=False)

    def url(self, port: str) -> str:
        """Return the URL of one of its HTTP servers."""
        return f"http://{self.address(port)}"

    def address(self, port: str) -> str:
        """Return host and port of one of its servers."""
        return f"127.0.0.1:{self.ports[port]}"

    def client_environment(self) -> dict[str, str]:
        """What a process needs to use the stack: the addresses and who it is."""
        return {
            "RAY_API_SERVER_ADDRESS": self.url("dashboard"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.passwords["ray"],
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.passwords["mlflow"],
            "AWS_ENDPOINT_URL": self.url("s3"),
            "AWS_ACCESS_KEY_ID": self.passwords["s3-access"],
            "AWS_SECRET_ACCESS_KEY": self.passwords["s3-secret"],
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def environment_file(self) -> Path:
        """To be read by a shell: what :meth:`client_environment` says."""
        return self.folder / _ENVIRONMENT


def resolve(folder: str) -> Path:
    """The absolute folder of a stack.

    Raises:
        UserError: its path is too long for Ray's sockets, or holds something that is no stack.
    """
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    if len(str(path)) > _LONGEST:
        raise UserError(
            f"--folder {path} has {len(str(path))} characters; Ray's sockets lie below it, so {_LONGEST} are the most: "
            "name a shorter one, for instance --folder ~/.mana"
        )
    if path.exists() and not path.is_dir():
        raise UserError(f"--folder {path} is a file; name a folder")
    if path.is_dir() and {item.name for item in path.iterdir()} - _BEGUN and not (path / _FILE).exists():
        raise UserError(f"--folder {path} holds something else than a local stack; name another")
    return path


def exists(folder: Path) -> bool:
    """Return whether a stack was made in ``folder``."""
    return (folder / _FILE).exists()


def load(folder: Path) -> Layout:
    """The stack in ``folder``, as it was saved.

    Raises:
        UserError: there is none.
    """
    if not exists(folder):
        raise UserError(f"--folder {folder} holds no local stack; `mana stack up` makes one")
    values = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return Layout(folder, values["ports"], values["passwords"])


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work on the stack in ``folder``, which is made, alone. The system ends the lock with the process.

    Raises:
        UserError: another process does so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=1)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"--folder {folder}: another `mana stack` is at work there; wait for it") from None
    try:
        yield
    finally:
        lock.release()


def prepare(folder: Path) -> Layout:
    """The stack in ``folder``, made if it is not there; ports that somebody else took meanwhile are replaced.

    Only its owner can read the folder and the files with passwords.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if exists(folder):
        before = load(folder)
        passwords, ports = before.passwords, before.ports
    else:
        passwords, ports = {name: secrets.token_hex(20) for name in SECRETS}, {}
    kept = {name: port for name, port in ports.items() if name in PORTS and _is_free(port)}
    missing = [name for name in PORTS if name not in kept]
    layout = Layout(folder, kept | dict(zip(missing, _free_ports(len(missing), kept.values()), strict=True)), passwords)
    # First: it marks all else here as the stack's, even if writing is cut off.
    _write_private(folder / _FILE, json.dumps({"ports": layout.ports, "passwords": layout.passwords}, indent=1))
    for name in ("ray", "tmp", "home", "logs", "weed"):
        (folder / name).mkdir(exist_ok=True)
    lines = [f"export {name}={value}\n" for name, value in layout.client_environment().items()]
    _write_private(layout.environment_file, "".join(lines))
    return layout


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at no time anybody else."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(temporary, path)


def _free_ports(count: int, taken: Iterable[int]) -> list[int]:
    others = set(taken)
    free: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if len(free) == count:
            break
        if port not in others and _is_free(port):
            free.append(port)
    if len(free) < count:
        raise UserError(f"fewer than {count} ports between {_RANGE.start} and {_RANGE.stop} are free")
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
