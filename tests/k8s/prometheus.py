"""What Prometheus' own tools say, and the queries that ``k8s/components/monitoring`` makes of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import REPOSITORY, Document

MONITORING = REPOSITORY / "k8s" / "components" / "monitoring"
DASHBOARDS = ("training", "jobs")


def promtool(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """``promtool ARGUMENTS``, given a text; skips where it is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip("not installed: promtool (Debian's package prometheus)")
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False)


def dashboard(name: str) -> Document:
    found: Document = json.loads((MONITORING / f"{name}.json").read_text(encoding="utf-8"))
    return found


def panel_queries(name: str) -> Iterator[tuple[str, str]]:
    """Title and query of a dashboard's panels, as Grafana sends it where everything is chosen."""
    for panel in dashboard(name)["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$namespace", ".*").replace("$run", ".*")


def alert_groups() -> Document:
    """The alerts as Prometheus' own file of rules has them."""
    spec: Document = document("alerts", "PrometheusRule")["spec"]
    return spec


def alerts() -> dict[str, Any]:
    return {rule["alert"]: rule for group in alert_groups()["groups"] for rule in group["rules"]}


def document(file: str, kind: str) -> Document:
    text = (MONITORING / f"{file}.yaml").read_text(encoding="utf-8")
    (found,) = [document for document in yaml.safe_load_all(text) if document["kind"] == kind]
    return dict(found)
