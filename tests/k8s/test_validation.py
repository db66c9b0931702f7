"""Every overlay builds and is valid, strictly; a mistyped word anywhere is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.k8s.manifests import OVERLAYS, REPOSITORY, built, copy_with, core_errors, kuberay_errors, kustomize


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_own_kinds_are_valid(overlay: str) -> None:
    assert core_errors(built(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberays_kinds_are_valid(overlay: str) -> None:
    assert kuberay_errors(built(overlay)) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base/mlflow/mlflow.yaml", "readinessProbe:", "readynessProbe:"),
        ("base/mlflow/mlflow.yaml", "runAsNonRoot: true", "runAsNonroot: true"),
        ("base/mlflow/mlflow.yaml", "failureThreshold: 36", "failureThreshold: many"),
        ("base/mlflow/postgres.yaml", "volumeMounts:", "volumeMount:"),
        ("base/network/policies.yaml", "podSelector: {}", "podSelectr: {}"),
        ("base/ray/account.yaml", "kind: ServiceAccount", "kind: ServiceAcount"),
        ("overlays/dev/seaweedfs.yaml", "apiVersion: apps/v1", "apiVersion: apps/v2"),
    ],
)
def test_a_mistyped_word_in_kubernetes_own_kinds_is_found(file: str, old: str, new: str, tmp_path: Path) -> None:
    done = kustomize("dev", copy_with(tmp_path, file, old, new))
    assert done.returncode != 0 or core_errors(done.stdout)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base/jobs/train.yaml", "backoffLimit:", "backofLimit:"),
        ("base/jobs/train.yaml", "submissionMode: HTTPMode", "submissionMode: HttpMode"),
        ("base/jobs/train.yaml", "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false"),
        ("base/jobs/train.yaml", "env_vars:", "env_vars"),
        ("base/ray/cluster.yaml", "minReplicas: 2", "minReplica: 2"),
        ("base/ray/cluster.yaml", "mode: token", "mode: tokens"),
        ("base/ray/cluster.yaml", 'num-cpus: "0"', "num-cpus: 0"),
        ("base/ray/cluster.yaml", "readOnlyRootFilesystem:", "readOnlyRootFileSystem:"),
        ("base/serve/service.yaml", "serveConfigV2:", "serveConfig:"),
    ],
)
def test_a_mistyped_word_in_kuberays_kinds_is_found(file: str, old: str, new: str, tmp_path: Path) -> None:
    done = kustomize("dev", copy_with(tmp_path, file, old, new))
    assert done.returncode != 0 or kuberay_errors(done.stdout)


def test_a_patch_that_finds_nothing_to_change_is_an_error(tmp_path: Path) -> None:
    file = "overlays/gpu/kustomization.yaml"
    done = kustomize("gpu", copy_with(tmp_path, file, "workerGroupSpecs/0/replicas", "workerGroupSpecs/1/replicas"))
    assert done.returncode != 0
    assert "workerGroupSpecs" in done.stderr


def test_the_yaml_is_tidy() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "k8s", "cluster"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
