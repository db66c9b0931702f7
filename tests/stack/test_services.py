"""The local servers are told what those of the Kubernetes manifests are told."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from mana_dist.stack import stack_layout
from mana_dist.stack.services import Service, base_environment, services
from tests.k8s.manifests import Document, named


@pytest.fixture
def local(tmp_path: Path) -> dict[str, Service]:
    return {service.name: service for service in services(stack_layout.prepare(tmp_path / "s"), cpus=2)}


def container(kind: str, name: str) -> Document:
    (found,) = named("dev", kind, name)["spec"]["template"]["spec"]["containers"]
    box: Document = found
    return box


def options(arguments: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (argument.partition("=") for argument in arguments)}


def test_mlflow(local: dict[str, Service]) -> None:
    here = options(word for word in local["mlflow"].command if word.startswith("--"))
    there = options(container("Deployment", "mlflow")["args"])
    assert set(here) == set(there)
    assert here["--app-name"] == there["--app-name"] == "basic-auth"
    settings: dict[str, str] = named("dev", "ConfigMap", "mlflow-settings")["data"]
    variables = {variable["name"] for variable in container("Deployment", "mlflow")["env"]} | set(settings)
    # The keys of the bucket are a secret there; a home folder, and what names the artifacts' place, are none here.
    assert variables - {"HOME", "MLFLOW_ARTIFACTS", "basic_auth.ini", "MLFLOW_DISABLE_TELEMETRY"} == set(
        local["mlflow"].environment
    ) - {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"}
    job_execution = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"
    assert settings[job_execution] == local["mlflow"].environment[job_execution]


def test_mlflows_passwords(local: dict[str, Service], tmp_path: Path) -> None:
    local["mlflow"].prepare()
    here = (tmp_path / "s" / "basic_auth.ini").read_text(encoding="utf-8").splitlines()
    there = named("dev", "ConfigMap", "mlflow-settings")["data"]["basic_auth.ini"].splitlines()
    differing = {line.split(" = ")[0] for line in set(here) ^ set(there)}
    assert differing == {"database_uri"}
    assert "password" not in "\n".join(here)


def test_seaweedfs(local: dict[str, Service]) -> None:
    here = options(word for word in local["seaweedfs"].command if word.startswith("-"))
    there = options(container("StatefulSet", "seaweedfs")["args"])
    for name in ("-s3.port.iceberg", "-s3.port.lance", "-webdav", "-admin.ui", "-master.telemetry"):
        assert here[name] == there[name]
    # Without a key in its environment anybody may write.
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(local["seaweedfs"].environment)
    assert {"secretRef": {"name": "mana-s3"}} in container("StatefulSet", "seaweedfs")["envFrom"]


def test_no_password_is_on_a_command_line(local: dict[str, Service], tmp_path: Path) -> None:
    passwords = stack_layout.load(tmp_path / "s").passwords.values()
    for service in local.values():
        assert not any(password in word for password in passwords for word in service.command)


def test_servers_take_nothing_from_the_users_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PGHOST", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "elsewhere")
    environment = base_environment(stack_layout.prepare(tmp_path / "s"))
    assert "elsewhere" not in environment.values()
    assert environment["HOME"] == str(tmp_path / "s" / "home")
