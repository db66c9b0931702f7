"""What may go wrong quietly: rights, open ports, secrets, images that change."""

import re
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import (
    OVERLAYS,
    REPOSITORY,
    cluster_specs,
    containers,
    documents,
    of_kind,
    pod_specs,
    settings,
)

# The labels of the operator's pods, by what installed it.
OPERATOR = {
    "Helm": {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"},
    "Kustomize": {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/component": "kuberay-operator"},
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_runs_as_root_or_with_rights_that_it_does_not_need(overlay: str) -> None:
    for name, pod in pod_specs(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert all("hostPath" not in volume for volume in pod.get("volumes", [])), name
        # The autoscaler, beside the head, must ask Kubernetes for pods.
        autoscaler = overlay == "gpu-elastic" and name.endswith(" head")
        assert pod["automountServiceAccountToken"] is autoscaler, name
    for name, container in containers(overlay):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert "privileged" not in context, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_says_what_it_takes(overlay: str) -> None:
    for name, container in containers(overlay):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), f"{name} {kind}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_servers_of_our_own_have_probes(overlay: str) -> None:
    """Ray's containers get theirs from the operator."""
    for document in of_kind(overlay, "Deployment", "StatefulSet"):
        for container in document["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), document["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_has_a_version(overlay: str) -> None:
    for name, container in containers(overlay):
        assert re.fullmatch(r".+:\d[\w.-]*", container["image"]), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_referred_to_and_never_there(overlay: str) -> None:
    example = yaml.safe_load_all((REPOSITORY / "k8s" / "secrets.example.yaml").read_text(encoding="utf-8"))
    known = {secret["metadata"]["name"]: secret["stringData"] for secret in example}
    assert all(value == "" for values in known.values() for value in values.values())
    assert of_kind(overlay, "Secret") == []
    used = set()
    for reference in _values(documents(overlay), "secretKeyRef"):
        assert reference["key"] in known[reference["name"]]
        used.add(reference["name"])
    used |= {reference["name"] for reference in _values(documents(overlay), "secretRef")}
    assert used == set(known)
    maps = {document["metadata"]["name"]: document["data"] for document in of_kind(overlay, "ConfigMap")}
    for reference in _values(documents(overlay), "configMapKeyRef"):
        assert reference["key"] in maps[reference["name"]] or reference.get("optional")
    for reference in _values(documents(overlay), "configMapRef"):
        assert reference["name"] in maps
    for name, value in [*settings(overlay).items(), *_literals(overlay)]:
        assert not value or not re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", name), name


def _literals(overlay: str) -> list[tuple[str, str]]:
    return [(item["name"], item.get("value", "")) for _, box in containers(overlay) for item in box.get("env", [])]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_cluster_asks_for_a_token(overlay: str) -> None:
    clusters = list(cluster_specs(overlay))
    assert len(clusters) == 8
    for name, cluster in clusters:
        assert cluster["authOptions"] == {"mode": "token"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_open_to_the_outside(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert of_kind(overlay, "Ingress") == []
    policies = {document["metadata"]["name"]: document["spec"] for document in of_kind(overlay, "NetworkPolicy")}
    assert policies["nothing-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ray = {"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            assert rule["from"], f"{name} is open to all"
            ports = {port["port"] for port in rule.get("ports", [])}
            # The dashboard and the GCS: Ray's own pods, and the operator's where it asks for a job's state.
            if name == "ray":
                assert rule["from"] == [ray]
            elif name == "ray-operator":
                assert ports == {8265, 8000}
                (source,) = rule["from"]
                for labels in OPERATOR.values():
                    assert source["podSelector"]["matchLabels"].items() <= labels.items()
            else:
                assert ports, f"{name} opens all ports"
                assert not ports & {6379, 8265, 10001}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rays_account_has_no_rights(overlay: str) -> None:
    assert of_kind(overlay, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding") == []
    for name, pod in pod_specs(overlay):
        if name.startswith("Ray"):
            assert pod["serviceAccountName"] == "mana-ray", name


@pytest.mark.parametrize("overlay", ["gpu", "gpu-elastic"])
def test_mlflow_outlives_the_loss_of_a_node(overlay: str) -> None:
    (budget,) = of_kind(overlay, "PodDisruptionBudget")
    (server,) = of_kind(overlay, "Deployment")
    assert budget["spec"]["selector"] == server["spec"]["selector"]
    assert budget["spec"]["minAvailable"] < server["spec"]["replicas"]


def _values(node: Any, key: str) -> list[dict[str, Any]]:
    """The values of ``key`` at any depth."""
    if isinstance(node, list | tuple):
        return [value for item in node for value in _values(item, key)]
    if not isinstance(node, dict):
        return []
    here = [node[key]] if key in node else []
    return here + [value for item in node.values() for value in _values(item, key)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_can_be_applied_by_its_part(overlay: str) -> None:
    """``kubectl apply -l mana-dist/part=…``, as k8s/README.md says, leaves out none."""
    for document in documents(overlay):
        name, kind = document["metadata"]["name"], document["kind"]
        part = document["metadata"]["labels"]["mana-dist/part"]
        if kind == "RayCluster":
            assert part == {"mana": "interactive", "mana-cpu": "interactive-cpu"}[name]
        else:
            assert part == (name.removeprefix("mana-") if kind.startswith("Ray") else "platform")
