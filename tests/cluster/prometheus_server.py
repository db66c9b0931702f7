"""A real Prometheus, which scrapes a Ray cluster of this machine as the PodMonitor tells it to."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

from tests.k8s.prometheus import alert_groups, document
from tests.ports import free_ports
from tests.train.trainings import PATIENCE

NO_STEP = 30  # seconds instead of a quarter of an hour, for the alert; Ray shows a figure up to 12 s late
Series = list[dict[str, Any]]


def unavailable() -> str:
    """Why there can be none here; empty if there can."""
    return "" if shutil.which("prometheus") else "not installed: prometheus (Debian's package)"


class Prometheus:
    """The server, with the alerts of the manifests. Use as a context manager.

    Args:
        folder: for its files.
        ray_folder: where Ray writes which nodes there are.
    """

    def __init__(self, folder: Path, ray_folder: str) -> None:
        self._folder = folder
        folder.mkdir()
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        (endpoint,) = document("scraping", "PodMonitor")["spec"]["podMetricsEndpoints"]
        job = {
            "job_name": "ray",
            "file_sd_configs": [{"files": [f"{ray_folder}/prom_metrics_service_discovery.json"]}],
            "relabel_configs": [{"target_label": "namespace", "replacement": "mana"}],
            "metric_relabel_configs": [_as_prometheus_has_it(item) for item in endpoint["metricRelabelings"]],
        }
        own = {"global": {"scrape_interval": "2s", "evaluation_interval": "2s"}, "rule_files": ["rules.yml"]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump({**own, "scrape_configs": [job]}))
        rules = yaml.safe_dump(alert_groups(), width=10_000)
        assert rules.count("> 900") == 1
        (folder / "rules.yml").write_text(rules.replace("> 900", f"> {NO_STEP}"))

    def __enter__(self) -> Self:
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    *["prometheus", f"--config.file={self._folder}/prometheus.yml"],
                    *[f"--storage.tsdb.path={self._folder}/data", f"--web.listen-address={self._address}"],
                ],
                stdout=log,
                stderr=log,
            )
        self.wait("Prometheus", lambda: self._answers("vector(1)") != [])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def ask(self, query: str, at: float | None = None) -> Series:
        """What a query gives now, or at a time; any error of Prometheus' is one of the test."""
        return self._get("query", query=query, time=time.time() if at is None else at)

    def ask_over(self, query: str, begin: float, end: float) -> Series:
        """What a panel would show of it."""
        return self._get("query_range", query=query, start=begin, end=end, step=5)

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {series["metric"]["alertname"] for series in self.ask('ALERTS{alertstate="firing"}')}

    def wait_for(self, query: str) -> Series:
        """What the query gives, once it gives something."""
        found: Series = []

        def asked() -> bool:
            found[:] = self.ask(query)
            return bool(found)

        self.wait(query, asked)
        return found

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, f"not in {PATIENCE} s: {what}"
            time.sleep(0.5)

    def _answers(self, query: str) -> Series:
        try:
            return self.ask(query)
        except OSError:
            return []

    def _get(self, path: str, **parameters: str | float) -> Series:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        result: Series = answer["data"]["result"]
        return result


def _as_prometheus_has_it(relabeling: dict[str, Any]) -> dict[str, Any]:
    """The operator's camelCase is Prometheus' snake_case."""
    return {re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", key): value for key, value in relabeling.items()}
