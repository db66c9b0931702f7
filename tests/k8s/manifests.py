"""What Kustomize makes of the overlays, and what strict validators say of it."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
OVERLAYS = ("dev", "gpu", "gpu-elastic")
JOBS = ("ingest", "train", "sweep", "evaluate", "upscale")
_KUBECTL = str(Path(sys.executable).with_name("kubectl"))

Document = dict[str, Any]


def kustomize(overlay: str, folder: Path = REPOSITORY / "k8s") -> "subprocess.CompletedProcess[str]":
    """``kubectl kustomize`` of an overlay in the folder of all manifests."""
    command = [_KUBECTL, "kustomize", str(folder / "overlays" / overlay)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@functools.cache
def built(overlay: str) -> str:
    """The overlay as ``kubectl apply`` would send it."""
    done = kustomize(overlay)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def documents(overlay: str) -> tuple[Document, ...]:
    return parsed(built(overlay))


def parsed(text: str) -> tuple[Document, ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # many times as fast, where it was built
    return tuple(document for document in yaml.load_all(text, loader) if document)


def of_kind(overlay: str, *kinds: str) -> list[Document]:
    return [document for document in documents(overlay) if document["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Document:
    (found,) = [document for document in of_kind(overlay, kind) if document["metadata"]["name"] == name]
    return found


def settings(overlay: str) -> dict[str, str]:
    """What every Ray container has in its environment from the ConfigMap."""
    data: dict[str, str] = named(overlay, "ConfigMap", "mana-settings")["data"]
    return data


def copy_with(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of all manifests in ``folder`` with a change in one file."""
    copy = folder / "k8s"
    shutil.copytree(REPOSITORY / "k8s", copy)
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new), encoding="utf-8")
    return copy


@functools.cache
def with_components(overlay: str) -> str:
    """The overlay with the components for logs and monitoring, put where k8s/README.md says."""
    last = "  - ../../components/cluster-everywhere\n"
    with tempfile.TemporaryDirectory() as folder:
        more = "".join(f"  - ../../components/{name}\n" for name in ("logs", "monitoring"))
        done = kustomize(overlay, copy_with(Path(folder), f"overlays/{overlay}/kustomization.yaml", last, more + last))
    assert done.returncode == 0, done.stderr
    return done.stdout


def core_errors(text: str) -> list[str]:
    """What is wrong with Kubernetes' own kinds in ``text``, by the newest schemas, unknown fields included."""
    errors = []
    for document in parsed(text):
        if document["apiVersion"].startswith(("ray.io/", "monitoring.coreos.com/")):
            continue
        try:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            errors.append(f"{document['kind']}/{document['metadata']['name']}: {error}")
    return errors


def kuberay_errors(text: str) -> list[str]:
    """What is wrong with KubeRay's kinds in ``text``, by the operator's CRDs and rules; skips without those."""
    check, crds = _kuberay_validator()
    ours = [document for document in parsed(text) if document["apiVersion"].startswith("ray.io/")]
    assert len(ours) == 8
    return [f"{document['kind']}: {error}" for document in ours for error in check(document, crds)]


@functools.cache
def _kuberay_validator() -> tuple[Callable[[Document, Any], list[str]], Any]:
    shared = os.environ.get("MANA_TEST_KUBERAY")
    if not shared:
        pytest.skip("MANA_TEST_KUBERAY names no folder with KubeRay's CRDs (kuberay/) and their validator (tools/)")
    (crds,) = Path(shared, "kuberay").glob("crds-*")
    spec = importlib.util.spec_from_file_location("validate_kuberay", Path(shared, "tools", "validate_kuberay.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check, module.load_crds(str(crds))


def cluster_specs(overlay: str) -> Iterator[tuple[str, Document]]:
    """The name and the Ray cluster of everything that has one."""
    yield from clusters_in(documents(overlay))


def clusters_in(documents: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """The same of any documents."""
    places = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
    for document in documents:
        if document["kind"] not in places:
            continue
        spec = document["spec"]
        for key in places[document["kind"]]:
            spec = spec[key]
        yield f"{document['kind']}/{document['metadata']['name']}", spec


def pod_specs(overlay: str) -> Iterator[tuple[str, Document]]:
    """The name and the spec of every pod that comes of the overlay."""
    for document in of_kind(overlay, "Deployment", "StatefulSet"):
        yield f"{document['kind']}/{document['metadata']['name']}", document["spec"]["template"]["spec"]
    for name, cluster in cluster_specs(overlay):
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            yield f"{name} {group.get('groupName', 'head')}", group["template"]["spec"]


def containers(overlay: str) -> Iterator[tuple[str, Document]]:
    """The name and the container of all pods."""
    for name, pod in pod_specs(overlay):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name} {container['name']}", container


def quantity(text: str) -> float:
    """A number of Kubernetes, as "1.5", "500m" or "2Gi"."""
    units = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "": 1.0}
    number = text.rstrip("mMGi")
    return float(number) * units[text[len(number) :]]


def entrypoint(overlay: str, job: str) -> str:
    """A job's entrypoint, a shell command."""
    line: str = named(overlay, "RayJob", f"mana-{job}")["spec"]["entrypoint"]
    return line


def runtime_environment(overlay: str, job: str) -> Document:
    environment: Document = yaml.safe_load(named(overlay, "RayJob", f"mana-{job}")["spec"]["runtimeEnvYAML"])
    return environment


def words(line: str, environment: Mapping[str, str]) -> list[str]:
    """The words that a shell makes of a command line, its variables put in from ``environment`` alone."""
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    script = f'set -u; exec "{sys.executable}" -c "{show}" {line}'
    done = subprocess.run(["bash", "-c", script], env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found
