"""A small cluster of the images: its pods, their probes, and the jobs, word for word."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.image.asking import OVERLAY, ask, wait
from tests.image.containers import ADDRESS, Image, Pod
from tests.k8s.manifests import (
    Document,
    cluster_specs,
    entrypoint,
    named,
    quantity,
    runtime_environment,
    settings,
)
from tests.stack.test_stack import SMALLER
from tests.video.videos import moving_frames, write_video

# Two pods with one address: the second one's ports. Workers' ports are chosen by each for itself.
_ELSEWHERE = {"dashboard-agent-listen-port": "52366", "metrics-export-port": "8081"}
_ELSEWHERE |= {"min-worker-port": "20000", "max-worker-port": "29999"}
SWEEP = f"{settings(OVERLAY)['MANA_SWEEP_ARGS']} --run.log_every 1 {SMALLER['MANA_TRAIN_ARGS']}"
TOKEN = "of-ray-" + "0" * 32  # the operator makes it
Data = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def values(data: Data) -> Data:
    """Data of the pods, with smaller work."""
    changed = settings(OVERLAY) | SMALLER | {"MANA_SWEEP_ARGS": SWEEP.replace("--slots none 64", "--slots none 4")}
    return data | {"mana-settings": changed}


@pytest.fixture(scope="module")
def videos(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, places = tmp_path_factory.mktemp("videos"), settings(OVERLAY)
    for number, place in enumerate(("MANA_SOURCE", "MANA_EVALUATE_ON")):
        video = write_video(folder / f"{number}.mp4", moving_frames(16 - 4 * number, 128, 192, step=3 + number))
        bucket.upload_file(str(video), *f"{places[place]}/clip.mp4".removeprefix("s3://").split("/", 1))


def test_mlflows_server_is_up_by_its_probes_and_asks_for_a_password(mlflow: Pod) -> None:
    assert "Read-only file system" in mlflow.run("mlflow", "touch", "/opt/mana/x").stderr
    assert mlflow.run("mlflow", "id", "-u").stdout == "1000\n"
    assert ask("http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1")[0] == 401


def ray_start(group: Document, **more: str) -> list[str]:
    """The command that KubeRay 1.7 puts into a pod of Ray."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    options = {
        "num-cpus": limits["cpu"],
        "memory": str(int(quantity(limits["memory"]))),
        "dashboard-agent-listen-port": "52365",
        "metrics-export-port": "8080",
        **group["rayStartParams"],
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    words = " ".join(f"--{name}={value}" for name, value in options.items())
    kind = "" if "address" in options else "--head "
    return ["/bin/bash", "-lc", "--", f"ulimit -n 65536; ray start {kind}--block {words}"]


@pytest.fixture(scope="module")
def cluster(ray_image: Image, mlflow: Pod, values: Data, folder: Path) -> Iterator[tuple[Pod, Pod]]:
    """Head and worker of a RayCluster, started as KubeRay starts them."""
    spec = dict(cluster_specs(OVERLAY))["RayJob/mana-train"]
    (group,) = spec["workerGroupSpecs"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with contextlib.ExitStack() as stack:
        pods = []
        for name, part in (("head", spec["headGroupSpec"]), ("worker", group)):
            pods.append(stack.enter_context(Pod(name, part["template"]["spec"], ray_image, values, folder / name)))
            pods[-1].run_first()
        head, worker = pods
        head.start("ray-head", ray_start(spec["headGroupSpec"]), token | {"RAY_ADDRESS": "127.0.0.1:6379"})
        # What KubeRay's init container of a worker waits for.
        health = ["ray", "health-check", "--address", f"{ADDRESS}:6379"]
        head.wait("ray-head", lambda: head.run("ray-head", *health).returncode == 0)
        started = ray_start(group, address=f"{ADDRESS}:6379", **_ELSEWHERE)
        worker.start("ray-worker", started, token | {"RAY_ADDRESS": f"{ADDRESS}:6379"})
        # Ready by its probes, and the dashboard takes jobs.
        urls = [f"http://{ADDRESS}:{port}/api/healthz" for port in (52365, 52366)]
        urls.append("http://127.0.0.1:8265/api/gcs_healthz")
        worker.wait("ray-worker", lambda: all(ask(url)[0] == 200 for url in urls))
        yield head, worker


def test_kuberays_probes_are_answered(cluster: tuple[Pod, Pod]) -> None:
    """Those of its version 1.7 for Ray 2.53 and newer, and the commands for workers that serve and older ones."""
    head, worker = cluster
    for pod, name, port in ((head, "ray-head", 52365), (worker, "ray-worker", 52366)):
        assert ask(f"http://{ADDRESS}:{port}/api/healthz")[0] == 200
        command = f"wget --tries 1 -T 2 -q -O- http://localhost:{port}/api/local_raylet_healthz | grep success"
        done = pod.run(name, "bash", "-c", command)
        assert done.returncode == 0, done.stdout + done.stderr
    command = "wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
    done = head.run("ray-head", "bash", "-c", command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ask("http://127.0.0.1:8265/api/jobs/")[0] == 401


def test_the_worker_is_a_node_with_the_memory_that_the_manifest_gives(cluster: tuple[Pod, Pod]) -> None:
    head, _ = cluster
    program = "import ray, json; ray.init(log_to_driver=False); print(json.dumps(ray.cluster_resources()))"
    wait(lambda: _resources(head, program).get("CPU") == 2.0)
    assert "Object store" not in head.log("ray-head")  # a complaint that it is on the disk


def _resources(head: Pod, program: str) -> dict[str, float]:
    done = head.run("ray-head", "python", "-c", program)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_job(head: Pod, job: str, seconds: float = 900) -> str:
    """Submit a job as the operator does in HTTPMode, wait for its good end, and give what it printed."""
    address, token = "http://127.0.0.1:8265/api/jobs/", {"Authorization": f"Bearer {TOKEN}"}
    body = {"entrypoint": entrypoint(OVERLAY, job), "runtime_env": runtime_environment(OVERLAY, job)}
    status, answer = ask(address, body | {"entrypoint_num_cpus": 0}, token)
    assert status == 200, answer
    path, deadline = f"{address}{answer['submission_id']}", time.monotonic() + seconds
    while (state := ask(path, headers=token)[1]["status"]) not in ("SUCCEEDED", "FAILED", "STOPPED"):
        assert time.monotonic() < deadline, ask(f"{path}/logs", headers=token)[1]["logs"]
        time.sleep(0.5)
    log: str = ask(f"{path}/logs", headers=token)[1]["logs"]
    assert state == "SUCCEEDED", f"{log}\n{head.log('ray-head')[-2000:]}"
    return log


def stored(bucket: Any, place: str, name: str) -> Any:
    where = f"{settings(OVERLAY)[place]}/{name}".removeprefix("s3://mana/")
    return json.loads(bucket.get_object(Bucket="mana", Key=where)["Body"].read())


@pytest.fixture(scope="module")
def samples(cluster: tuple[Pod, Pod], videos: None, bucket: Any) -> Pod:
    """What the job ingest makes; gives the head."""
    head, _ = cluster
    run_job(head, "ingest")
    assert stored(bucket, "MANA_SAMPLES", "manifest.json")["samples"] > 4
    return head


def test_train_evaluate_and_upscale_by_a_registered_model(samples: Pod, bucket: Any) -> None:
    head = samples
    log = run_job(head, "train")
    assert "step 10/10" in log
    assert "registered as models:/mana-x4/1 with alias 'candidate'" in log
    run_job(head, "evaluate")
    methods = stored(bucket, "MANA_RESULTS", "metrics.json")["methods"]
    assert [method["mean"]["frames"] for method in methods.values()] == [3, 3]
    run_job(head, "upscale")
    upscaled = settings(OVERLAY)["MANA_UPSCALED"].removeprefix("s3://mana/")
    keys = [item["Key"] for item in bucket.list_objects_v2(Bucket="mana", Prefix=upscaled)["Contents"]]
    assert [key for key in keys if re.search(r"clip\.(mp4|mkv|mov)$", key)], keys


def test_sweep(samples: Pod) -> None:
    assert re.search(r"registered as models:/mana-x4/\d with alias 'candidate'", run_job(samples, "sweep"))


def test_the_serving_app_is_ready_by_its_probe(cluster: tuple[Pod, Pod], mlflow: Pod, values: Data) -> None:
    head, _ = cluster
    promote = "from mlflow import MlflowClient; MlflowClient().set_registered_model_alias('mana-x4', 'champion', 1)"
    done = head.run("ray-head", "python", "-c", promote)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(named(OVERLAY, "RayService", "mana-serve")["spec"]["serveConfigV2"])
    token = {"Authorization": f"Bearer {TOKEN}"}
    applications = "http://127.0.0.1:8265/api/serve/applications/"
    assert ask(applications, config, token, "PUT")[0] == 200
    probe = "wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success"
    head.wait("ray-head", lambda: head.run("ray-head", "bash", "-c", probe).returncode == 0, 600)
    wait(lambda: ask("http://127.0.0.1:8000/healthz")[0] == 200, 600)
