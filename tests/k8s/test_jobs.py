"""The jobs' words are those of the real commands, and their clusters have what they ask for."""

import importlib
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mana_dist import config as configuration
from mana_dist.errors import UserError
from mana_dist.evaluate.__main__ import parse as parse_evaluation
from mana_dist.serve import ServeOptions
from tests.command_lines import bucket_options, ingest_options
from tests.k8s.manifests import (
    JOBS,
    OVERLAYS,
    REPOSITORY,
    Document,
    cluster_specs,
    entrypoint,
    named,
    of_kind,
    pod_specs,
    quantity,
    runtime_environment,
    settings,
    words,
)


def arguments(overlay: str, job: str) -> list[str]:
    """A job's command line as the head's shell makes it."""
    return words(entrypoint(overlay, job), settings(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ingest(overlay: str) -> None:
    line, values = arguments(overlay, "ingest"), settings(overlay)
    assert line[:2] == ["mana", "ingest"]
    asked = ingest_options(line[2:])
    assert (asked.sources, asked.out) == ((values["MANA_SOURCE"],), values["MANA_SAMPLES"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_train_uses_all_of_its_cluster(overlay: str) -> None:
    line, values = arguments(overlay, "train"), settings(overlay)
    assert line[:2] == ["mana", "train"]
    config = configuration.parse(line[2:])
    assert config.data.path == values["MANA_SAMPLES"]
    assert (config.run.name, config.run.storage) == (values["MANA_RUN"], values["MANA_RUNS"])
    group = worker_group(overlay, "train")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    each = int(limits.get("nvidia.com/gpu", 0)) or int(limits["cpu"]) // config.run.cpus_per_worker
    assert config.run.worker_range == (group["minReplicas"] * each, group["maxReplicas"] * each)
    assert each * config.run.cpus_per_worker <= int(limits["cpu"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sweep(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("mana_dist.sweep.__main__._run", lambda config, sweep, options: asked.append((config, options)))
    from mana_dist.sweep.__main__ import main

    line, values = arguments(overlay, "sweep"), settings(overlay)
    assert line[:3] == ["mana", "sweep", "memory"]
    main(line[2:])
    ((config, options),) = asked
    assert (config.run.name, config.data.path) == (values["MANA_SWEEP"], values["MANA_SAMPLES"])
    assert options.evaluate_on == [values["MANA_EVALUATE_ON"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_evaluate(overlay: str) -> None:
    line, values = arguments(overlay, "evaluate"), settings(overlay)
    assert line[:2] == ["mana", "evaluate"]
    asked = parse_evaluation(line[2:])
    assert asked.data == (values["MANA_EVALUATE_ON"],)
    assert asked.methods == ("bicubic", values["MANA_MODEL"])
    assert asked.out == values["MANA_RESULTS"]
    assert asked.device == ("auto" if overlay == "dev" else "cuda")  # the head, where it begins, has no GPU


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_upscale(overlay: str) -> None:
    line, values = arguments(overlay, "upscale"), settings(overlay)
    assert line[:2] == ["mana", "upscale"]
    asked = bucket_options(line[2:])
    assert (asked.sources, asked.out) == ((values["MANA_UPSCALE_SOURCE"],), values["MANA_UPSCALED"])
    assert asked.model == values["MANA_MODEL"]
    with pytest.raises(UserError, match="--modell"):
        bucket_options([*line[2:], "--modell", "x"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_serving_app(overlay: str) -> None:
    serve = yaml.safe_load(named(overlay, "RayService", "mana-serve")["spec"]["serveConfigV2"])
    (application,) = serve["applications"]
    module, name = application["import_path"].split(":")
    assert hasattr(importlib.import_module(module), name)
    options = ServeOptions(**application["args"])
    assert options.model == settings(overlay)["MANA_SERVED"] == "models:/mana-x4@champion"
    # It is built when only the head is there, which has no GPU; "auto" would be the CPU for good.
    assert options.device == ("cpu" if overlay == "dev" else "cuda")
    (group,) = dict(cluster_specs(overlay))["RayService/mana-serve"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(limits.get("nvidia.com/gpu", 0)) == (0 if overlay == "dev" else options.replicas)
    assert quantity(limits["cpu"]) > options.cpus * options.replicas  # and the front


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_job_can_be_run_again(overlay: str) -> None:
    """A retry is a new cluster, so the name of the run and all places are outside of it."""
    jobs = {document["metadata"]["name"]: document["spec"] for document in of_kind(overlay, "RayJob")}
    assert set(jobs) == {f"mana-{job}" for job in JOBS}
    for name, spec in jobs.items():
        assert spec["backoffLimit"] > 0, name
        assert spec["shutdownAfterJobFinishes"] is True, name
        # The line is handed over as it is: in other modes another pod's shell would put the variables in.
        assert spec["submissionMode"] == "HTTPMode", name
    places = ("SAMPLES", "RUNS", "RESULTS", "UPSCALED", "SOURCE", "EVALUATE_ON", "UPSCALE_SOURCE")
    assert all(settings(overlay)[f"MANA_{place}"].startswith("s3://") for place in places)
    assert settings(overlay)["MLFLOW_TRACKING_URI"].startswith("http://mlflow:")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_stopped_job_has_time_for_a_checkpoint(overlay: str) -> None:
    for job in JOBS:
        assert int(runtime_environment(overlay, job)["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 20
    for name, cluster in cluster_specs(overlay):
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= 30, name


def test_the_gpu_training_is_of_fixed_size_and_starts_whole() -> None:
    for job in of_kind("gpu", "RayJob"):
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "mana"
    group = worker_group("gpu", "train")
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] > 1
    pod, box = group["template"]["spec"], group["template"]["spec"]["containers"][0]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert {"mana-dist/node": "worker", "ray.io/group": group["groupName"]} == term["labelSelector"]["matchLabels"]
    assert group["template"]["metadata"]["labels"]["mana-dist/node"] == "worker"
    assert {"NCCL_DEBUG", "NCCL_SOCKET_IFNAME"} <= {variable["name"] for variable in box["env"]}
    (shared,) = [mount["name"] for mount in box["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    (memory,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == shared]
    assert memory["medium"] == "Memory"


def test_the_elastic_training_has_an_autoscaler_and_spot_nodes() -> None:
    cluster = dict(cluster_specs("gpu-elastic"))["RayJob/mana-train"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    group = worker_group("gpu-elastic", "train")
    assert group["minReplicas"] < group["maxReplicas"]
    assert "spot" in group["template"]["spec"]["nodeSelector"].values()
    assert re.fullmatch(r"\d+-\d+", settings("gpu-elastic")["MANA_WORKERS"])
    assert all("kueue" not in str(job["metadata"]) for job in of_kind("gpu-elastic", "RayJob"))


@pytest.mark.parametrize("overlay", ["gpu", "gpu-elastic"])
def test_the_ingest_takes_no_gpu(overlay: str) -> None:
    assert "nvidia.com/gpu" not in str(worker_group(overlay, "ingest"))
    assert "nvidia.com/gpu" in str(worker_group(overlay, "evaluate"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ray_version_is_the_tested_one(overlay: str) -> None:
    pinned = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    for name, cluster in cluster_specs(overlay):
        assert f"\nray=={cluster['rayVersion']}\n" in pinned, name


def worker_group(overlay: str, job: str) -> Document:
    (group,) = dict(cluster_specs(overlay))[f"RayJob/mana-{job}"]["workerGroupSpecs"]
    found: Document = group
    return found


def test_dev_with_one_job_fits_into_four_cpus_and_16_gib() -> None:
    servers = [pod for name, pod in pod_specs("dev") if not name.startswith("Ray")]
    job = [pod for name, pod in pod_specs("dev") if name.startswith("RayJob/mana-train")]
    assert len(job) == 2
    requests = [box["resources"]["requests"] for pod in servers + job for box in pod["containers"]]
    assert sum(quantity(request["cpu"]) for request in requests) < 4
    assert sum(quantity(request["memory"]) for request in requests) < 15 * 2**30  # Kubernetes itself takes some


def test_the_shell_finds_a_variable_that_nobody_set() -> None:
    """What the tests above rely on."""
    assert shutil.which("bash")
    with pytest.raises(AssertionError, match="MANA_NOBODY"):
        words("python $MANA_NOBODY", {})
    assert words("a $B", {"B": "c d"}) == ["a", "c", "d"]
    assert Path(REPOSITORY / "k8s").is_dir()


def test_a_condition_for_promotion_passes_through_the_shell() -> None:
    """As k8s/README.md writes it: no quotes, no blanks, and no file named "@champion"."""
    appended = {"MANA_EVALUATE_ARGS": "--device cuda --promote-if psnr_rgb>@champion"}
    line = words(entrypoint("gpu", "evaluate"), settings("gpu") | appended)
    assert parse_evaluation(line[2:]).promote_if == ("psnr_rgb>@champion",)
