"""The images, and a bucket and a database on the ports that the manifests name."""

import dataclasses
import shutil
import socket
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest

from mana_dist import __version__
from mana_dist.stack import processes, stack_layout
from mana_dist.stack.services import base_environment, services
from tests.image.asking import OVERLAY, ask, wait
from tests.image.containers import ADDRESS, Image, Pod, mounted
from tests.k8s.manifests import of_kind, pod_specs


@pytest.fixture(scope="session")
def ray_image() -> Iterator[Image]:
    with mounted(f"mana-dist:{__version__}") as image:
        yield image


@pytest.fixture(scope="session")
def mlflow_image() -> Iterator[Image]:
    with mounted(f"mana-mlflow:{__version__}") as image:
        yield image


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="im-"))  # short: sockets lie below it
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def data(folder: Path) -> Iterator[dict[str, dict[str, str]]]:
    """ConfigMaps and Secrets, with SeaweedFS and PostgreSQL at their addresses."""
    try:
        socket.create_server((ADDRESS, 8333)).close()
    except OSError as error:
        pytest.exit(f"a network of its own is needed ({error}): make test-image")
    made = stack_layout.prepare(folder / "servers")
    layout = dataclasses.replace(made, ports=made.ports | {"s3": 8333, "postgres": 5432})
    user = layout.client_environment()
    try:
        for service in services(layout, cpus=1)[:2]:
            service.prepare()
            log, environment = (
                layout.folder / "logs" / service.name,
                {**base_environment(layout), **service.environment},
            )
            processes.start(service.command, environment, log, layout.folder, service.stop)
            wait(service.is_ready)
            service.finish()
        database = psycopg2.connect(
            host="127.0.0.1", user="mlflow", dbname="postgres", password=layout.passwords["postgres"]
        )
        database.autocommit = True
        database.cursor().execute("CREATE DATABASE mlflow")
        database.close()
        yield {
            **{document["metadata"]["name"]: document["data"] for document in of_kind(OVERLAY, "ConfigMap")},
            "postgres": {"password": layout.passwords["postgres"]},
            "mlflow-server": {
                "admin-password": layout.passwords["mlflow"],
                "flask-secret-key": layout.passwords["flask"],
            },
            "mana-s3": {name: user[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
            "mana-mlflow": {"MLFLOW_TRACKING_USERNAME": "mana", "MLFLOW_TRACKING_PASSWORD": "p" * 20},
        }
    finally:
        processes.stop(layout.folder)


@pytest.fixture(scope="session")
def bucket(data: dict[str, dict[str, str]]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:8333",
        aws_access_key_id=data["mana-s3"]["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=data["mana-s3"]["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


@pytest.fixture(scope="session")
def mlflow(mlflow_image: Image, data: dict[str, dict[str, str]], folder: Path) -> Iterator[Pod]:
    """The pod of MLflow's server, once its probes say that it is up, with the jobs' user."""
    with Pod("mlflow", dict(pod_specs(OVERLAY))["Deployment/mlflow"], mlflow_image, data, folder / "mlflow") as pod:
        pod.start("mlflow")
        (box,) = pod.spec["containers"]
        ports = {port["name"]: port["containerPort"] for port in box["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = box[probe]["httpGet"]
            url = f"http://{ADDRESS}:{ports[asked['port']]}{asked['path']}"
            pod.wait("mlflow", lambda url=url: ask(url)[0] == 200)  # type: ignore[misc]
        login = b64encode(f"admin:{data['mlflow-server']['admin-password']}".encode()).decode()
        secret = data["mana-mlflow"]
        user = {"username": secret["MLFLOW_TRACKING_USERNAME"], "password": secret["MLFLOW_TRACKING_PASSWORD"]}
        path = "http://127.0.0.1:5000/api/2.0/mlflow/users/create"
        assert ask(path, user, {"Authorization": f"Basic {login}"})[0] == 200
        yield pod
