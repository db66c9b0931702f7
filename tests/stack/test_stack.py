"""The local stack, and on it the Kubernetes manifests' jobs: their entrypoints and environments, word for word."""

import base64
import contextlib
import http.client
import json
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
import pytest
from mlflow import MlflowClient

from mana_dist.stack import stack_layout
from tests.k8s.manifests import entrypoint, runtime_environment, settings
from tests.stack.running import Stack
from tests.video.videos import moving_frames, write_video

pytestmark = pytest.mark.cluster

OVERLAY = "dev"
# Of what a user may append: the tiny preset is still minutes of training.
SMALLER = {
    "MANA_INGEST_ARGS": "--stride 2",
    "MANA_TRAIN_ARGS": "--model.channels 8 --model.encoder_blocks 1 --model.decoder_blocks 1 --model.memory_slots 4 "
    "--data.crop 16 --data.batch_size 4 --schedule.stage1.steps 6 --schedule.stage2.steps 2 --schedule.stage3.steps 2",
    "MANA_EVALUATE_ARGS": "--frames 0:3",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    made = Stack()
    try:
        done = made.run("up", "--cpus", "3")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def user(stack: Stack) -> dict[str, str]:
    """What a user has in the environment."""
    return stack.environment()


@pytest.fixture(scope="module")
def videos(user: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The videos of the settings' places; gives their URIs."""
    folder, values = tmp_path_factory.mktemp("videos"), settings(OVERLAY)
    client = bucket(user)
    uris = []
    for number, place in enumerate(("MANA_SOURCE", "MANA_EVALUATE_ON")):
        video = write_video(folder / f"{number}.mp4", moving_frames(16 - 4 * number, 128, 192, step=3 + number))
        uris.append(f"{values[place]}/clip.mp4")
        client.upload_file(str(video), *uris[-1].removeprefix("s3://").split("/", 1))
    return uris


def bucket(user: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=user["AWS_ENDPOINT_URL"],
        aws_access_key_id=user["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=user["AWS_SECRET_ACCESS_KEY"],
        region_name=user["AWS_REGION"],
    )


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    headers = {"Content-Type": "application/json", **headers}
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data) if data[:1] in (b"{", b"[") else data


@pytest.fixture(scope="module")
def worker(user: dict[str, str]) -> dict[str, str]:
    """A user without any special right at MLflow, made as k8s/README.md says."""
    password = secrets.token_hex(20)
    body = {"username": "mana", "password": password}
    path = "/api/2.0/mlflow/users/create"
    assert ask(user["MLFLOW_TRACKING_URI"], "POST", path, body, Authorization=basic(user))[0] == 200
    return user | {"MLFLOW_TRACKING_USERNAME": "mana", "MLFLOW_TRACKING_PASSWORD": password}


def basic(user: dict[str, str]) -> str:
    login = f"{user['MLFLOW_TRACKING_USERNAME']}:{user['MLFLOW_TRACKING_PASSWORD']}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def run_job(stack: Stack, user: dict[str, str], job: str, seconds: float = 500) -> str:
    """Submit a manifest's job as the operator does in HTTPMode, wait for its good end, and give what it printed.

    The container's environment, which has the ConfigMap's settings, becomes a part of the job's; addresses and keys are
    those of the stack.
    """
    token = {"Authorization": f"Bearer {user['RAY_AUTH_TOKEN']}"}
    address = user["RAY_API_SERVER_ADDRESS"]
    local = {name: value for name, value in user.items() if name.startswith(("AWS_", "MLFLOW_"))}
    environment = runtime_environment(OVERLAY, job)
    environment["env_vars"] = settings(OVERLAY) | SMALLER | local | environment["env_vars"]
    body = {"entrypoint": entrypoint(OVERLAY, job), "runtime_env": environment, "entrypoint_num_cpus": 0}
    status, answer = ask(address, "POST", "/api/jobs/", body, **token)
    assert status == 200, answer
    path, deadline = f"/api/jobs/{answer['submission_id']}", time.monotonic() + seconds
    while True:
        state = ask(address, "GET", path, **token)[1]["status"]
        if state in ("SUCCEEDED", "FAILED", "STOPPED") or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    log: str = ask(address, "GET", f"{path}/logs", **token)[1]["logs"]
    assert state == "SUCCEEDED", f"{state}\n{log}\n{(stack.folder / 'logs' / 'ray.log').read_text()[-2000:]}"
    return log


def test_up_a_second_time_changes_nothing(stack: Stack, user: dict[str, str]) -> None:
    before = servers(stack)
    assert len(before) > 8
    done = stack.run("up")
    assert done.returncode == 0, done.stderr
    assert stack.environment() == user
    assert servers(stack) == before
    status = stack.run("status")
    assert status.returncode == 0
    lines = [line.split() for line in status.stdout.splitlines()]
    assert [line[:2] for line in lines] == [[name, "up"] for name in ("seaweedfs", "postgres", "ray", "mlflow")]
    open_to = {f"127.0.0.1:{port}" for _, _, port in listening(stack)}
    assert {line[2] for line in lines} <= open_to


def listening(stack: Stack) -> set[tuple[int, str, int]]:
    """Process, address and port of all of its servers' sockets."""
    found = set()
    for process in stack.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray's workers come and go
            found |= {
                (process.pid, connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections(kind="inet")
                if connection.status == "LISTEN"
            }
    return found


def servers(stack: Stack) -> set[tuple[int, str, int]]:
    """Those of the ports that the stack chose; Ray's workers, which come and go, have others."""
    ports = stack_layout.load(stack.folder).ports.values()
    return {(process, address, port) for process, address, port in listening(stack) if port in ports}


def test_only_its_owner_can_read_passwords(stack: Stack) -> None:
    assert stat.S_IMODE(stack.folder.stat().st_mode) == 0o700
    for name in ("env.sh", "stack.json"):
        assert stat.S_IMODE((stack.folder / name).stat().st_mode) == 0o600


def test_every_server_listens_on_loopback_alone(stack: Stack) -> None:
    addresses = [address for _, address, _ in listening(stack)]
    assert len(addresses) > 8
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}


def test_who_has_no_token_or_password_gets_nothing(user: dict[str, str]) -> None:
    jobs = (user["RAY_API_SERVER_ADDRESS"], "GET", "/api/jobs/")
    assert ask(*jobs)[0] == 401
    assert ask(*jobs, Authorization="Bearer 0123456789abcdef")[0] in (401, 403)
    assert ask(*jobs, Authorization=f"Bearer {user['RAY_AUTH_TOKEN']}")[0] == 200
    body = {"entrypoint": "true"}
    assert ask(user["RAY_API_SERVER_ADDRESS"], "POST", "/api/jobs/", body)[0] == 401

    experiments = (user["MLFLOW_TRACKING_URI"], "GET", "/api/2.0/mlflow/experiments/search?max_results=1")
    assert ask(*experiments)[0] == 401
    assert ask(*experiments, Authorization=basic(user | {"MLFLOW_TRACKING_PASSWORD": "wrong"}))[0] == 401
    assert ask(*experiments, Authorization=basic(user))[0] == 200
    assert ask(*experiments, Host="elsewhere.example")[0] == 403

    assert ask(user["AWS_ENDPOINT_URL"], "GET", "/mana?list-type=2")[0] == 403


def test_the_manifests_jobs_make_a_registered_model(
    stack: Stack, user: dict[str, str], worker: dict[str, str], videos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings(OVERLAY)
    run_job(stack, worker, "ingest")
    samples = values["MANA_SAMPLES"].removeprefix("s3://mana/")
    stored = bucket(user).get_object(Bucket="mana", Key=f"{samples}/manifest.json")["Body"].read()
    assert json.loads(stored)["samples"] > 4

    log = run_job(stack, worker, "train")
    assert "step 10/10" in log
    assert "registered as models:/mana-x4/1 with alias 'candidate'" in log
    for name, value in worker.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    client = MlflowClient(user["MLFLOW_TRACKING_URI"])
    version = client.get_model_version_by_alias("mana-x4", "candidate")
    assert client.get_run(version.run_id).data.params["run.name"] == values["MANA_RUN"]
    assert client.get_run(version.run_id).info.status == "FINISHED"
    # The run lies in the bucket, the registered model too: through the server, which alone knows where.
    keys = [item["Key"] for item in bucket(user).list_objects_v2(Bucket="mana")["Contents"]]
    assert f"runs/{values['MANA_RUN']}/model/model.safetensors" in keys
    assert [key for key in keys if key.startswith("mlflow/") and key.endswith("model.safetensors")]

    run_job(stack, worker, "evaluate")
    results = values["MANA_RESULTS"].removeprefix("s3://mana/")
    metrics = json.loads(bucket(user).get_object(Bucket="mana", Key=f"{results}/metrics.json")["Body"].read())
    assert len(metrics["methods"]) == 2
    assert all(method["mean"]["frames"] == 3 for method in metrics["methods"].values())
    # Nothing went into the working folder, which in a container is read-only.
    its_own = {"basic_auth.ini", "env.sh", "home", "lock", "logs", "postgres", "ray", "stack.json", "tmp", "weed"}
    assert {path.name for path in stack.folder.iterdir()} == its_own


def words(process: psutil.Process) -> set[str]:
    try:
        return set(process.cmdline())
    except psutil.NoSuchProcess:  # it ended meanwhile
        return set()


def test_down_leaves_no_process_and_no_file(stack: Stack, user: dict[str, str]) -> None:
    """The last test: the stack is down after it, up again with its data, and then gone."""
    assert len(stack.processes()) > 8
    (head,) = [process for process in stack.processes() if {"start", "--head"} <= words(process)]
    head.kill()  # its processes, which it can tell no more, are to be found nonetheless
    done = stack.run("down")
    assert done.returncode == 0, done.stderr
    assert stack.processes() == []
    assert [list(folder.iterdir()) for folder in stack.outside] == [[], []]
    for name in ("RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(urlsplit(user[name]).port or 0))) != 0
    refused = stack.run("status")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")

    gone = stack.run("down", "--delete")
    assert gone.returncode == 0, gone.stderr
    assert not stack.folder.exists()
    assert stack.run("down").returncode == 2
    assert not Path(stack.folder).exists()
