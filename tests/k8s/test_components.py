"""The components that an overlay may take: monitoring and logs."""

import re
from pathlib import PurePosixPath

import pytest
import yaml

from mana_dist.ray_metrics import COUNTERS, GAUGES
from tests.k8s.manifests import (
    OVERLAYS,
    REPOSITORY,
    Document,
    clusters_in,
    core_errors,
    kuberay_errors,
    parsed,
    settings,
    with_components,
)
from tests.k8s.prometheus import DASHBOARDS, alerts, dashboard, panel_queries


def found(overlay: str, kind: str, name: str) -> Document:
    (only,) = [
        document
        for document in parsed(with_components(overlay))
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    ]
    assert only["metadata"]["namespace"] == "mana"
    assert only["metadata"]["labels"]["mana-dist/part"] == "platform"
    return only


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_with_both_are_valid(overlay: str) -> None:
    assert core_errors(with_components(overlay)) == []
    assert kuberay_errors(with_components(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_scrapes_rays_pods_and_nothing_else_is_opened(overlay: str) -> None:
    """PodMonitor's fields, as the operator's API has them: there is no schema of it here."""
    monitor = found(overlay, "PodMonitor", "mana-ray")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    cluster = {"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"], "targetLabel": "ray_io_cluster"}
    assert monitor["spec"] == {
        "selector": {"matchLabels": {"ray.io/is-ray-node": "yes"}},
        "podMetricsEndpoints": [
            {
                "port": "metrics",
                "interval": "15s",
                "relabelings": [cluster],
                "metricRelabelings": [{"action": "labeldrop", "regex": "otel_scope_.*|SessionName|Version"}],
            }
        ],
    }
    for _, spec in clusters_in(parsed(with_components(overlay))):
        ports = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
        assert {"name": "metrics", "containerPort": 8080} in ports
    policy = found(overlay, "NetworkPolicy", "prometheus")["spec"]
    assert policy["podSelector"] == monitor["spec"]["selector"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": 8080}]
    (source,) = rule["from"]
    assert source["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}


def test_grafana_finds_the_dashboards() -> None:
    config = found("gpu", "ConfigMap", "mana-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(config["data"]) == {f"{name}.json" for name in DASHBOARDS}
    assert len({dashboard(name)["uid"] for name in DASHBOARDS}) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    panels = dashboard(name)["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24  # Grafana's columns
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_dashboards_and_alerts_ask_for_metrics_that_there_are() -> None:
    """A mistyped name is no error to Prometheus: it has no data."""
    queries = [query for name in DASHBOARDS for _, query in panel_queries(name)]
    queries += [rule["expr"] for rule in alerts().values()]
    asked = {name for query in queries for name in re.findall(r"\b(?:ray|kubelet)_\w+", query)}
    ours = {f"ray_{name}" for name in (*COUNTERS, *GAUGES)}
    assert asked - ours == {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
    text = (REPOSITORY / "k8s" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in alerts())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_logs_of_every_ray_pod_are_read_by_a_container_that_outlives_it(overlay: str) -> None:
    groups = [
        group
        for _, cluster in clusters_in(parsed(with_components(overlay)))
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    ]
    assert len(groups) == 16
    for group in groups:
        pod = group["template"]["spec"]
        (sidecar,) = [box for box in pod["initContainers"] if box["name"] == "logs"]
        assert sidecar["restartPolicy"] == "Always"  # which makes an init container a sidecar
        assert sidecar["securityContext"] == pod["containers"][0]["securityContext"]
        assert re.fullmatch(r".+:\d[\w.-]*", sidecar["image"])
        assert set(sidecar["resources"]) == {"requests", "limits"}
        mounts = {mount["mountPath"]: mount for mount in sidecar["volumeMounts"]}
        (ray,) = [mount["name"] for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == "/tmp"]
        assert mounts["/tmp"] == {"name": ray, "mountPath": "/tmp", "readOnly": True}
        assert {mount["name"] for mount in mounts.values()} <= {volume["name"] for volume in pod["volumes"]}


def fluent_bit(overlay: str) -> Document:
    config: Document = yaml.safe_load(found(overlay, "ConfigMap", "fluent-bit")["data"]["fluent-bit.yaml"])
    return config


def test_the_bucket_of_the_logs_is_that_of_the_runs() -> None:
    for overlay in OVERLAYS:
        (output,) = fluent_bit(overlay)["pipeline"]["outputs"]
        assert (output["name"], output["bucket"]) == ("s3", "${MANA_LOGS_BUCKET}")
        assert settings(overlay)["MANA_RUNS"].split("/")[2] == settings(overlay)["MANA_LOGS_BUCKET"]
        assert not re.search("key_id|secret|password", str(output), re.IGNORECASE)


@pytest.mark.parametrize("file", ["raylet.out", "job-driver-a.log", "worker-0-01-7.err", "serve/replica_mana_1.log"])
def test_what_ray_writes_is_read_as_logs(file: str) -> None:
    (tail,) = fluent_bit("dev")["pipeline"]["inputs"]
    path = PurePosixPath(f"/tmp/ray/session_2026-11-30_20-31-55_377638_1/logs/{file}")
    assert any(path.match(pattern) for pattern in tail["path"].split(","))
    latest = PurePosixPath(f"/tmp/ray/session_latest/logs/{file}")  # a link to it
    assert not any(latest.match(pattern) for pattern in tail["path"].split(","))
