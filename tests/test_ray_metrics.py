"""Metrics of the work at hand: their names, and where they go; see also ``cluster/test_monitoring``."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from mana_dist import ray_metrics
from mana_dist.ray_metrics import COUNTERS, GAUGES, RayMetrics
from tests.k8s.prometheus import promtool


def test_the_names_follow_prometheus_conventions() -> None:
    """By its own linter: units, ``_total`` of counters alone, a description."""
    lines = [
        f"# HELP ray_{name} {description}\n# TYPE ray_{name} {kind}\nray_{name} 1"
        for kind, table in (("counter", COUNTERS), ("gauge", GAUGES))
        for name, description in table.items()
    ]
    done = promtool("check", "metrics", text="\n".join(lines) + "\n")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    wrong = promtool(
        "check", "metrics", text="# HELP a_milliseconds B.\n# TYPE a_milliseconds counter\na_milliseconds 1\n"
    )
    assert wrong.returncode != 0


def test_without_ray_nothing_happens_and_it_is_not_imported() -> None:
    script = (
        "import sys\nfrom mana_dist.ray_metrics import RayMetrics\n"
        "with RayMetrics(run='a') as metrics:\n"
        "    metrics.add('mana_train_samples_total', 5)\n    metrics.set('mana_train_step', 1)\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_gauges_are_set_again_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, dict[str, str]]] = []
    enough = threading.Event()

    class Gauge:
        def set(self, value: float, tags: dict[str, str]) -> None:
            seen.append((value, tags))
            if len(seen) >= 5:
                enough.set()

    def gauge(name: str, tags: tuple[str, ...]) -> Any:
        assert (name, tags) == ("mana_train_step", ("run",))
        return Gauge()

    monkeypatch.setattr(ray_metrics, "_is_connected", lambda: True)
    monkeypatch.setattr(ray_metrics, "_gauge", gauge)
    monkeypatch.setattr(ray_metrics, "_AGAIN", 0.01)
    with RayMetrics(run="a") as metrics:
        metrics.set("mana_train_step", 3)
        assert enough.wait(60)
    assert metrics._thread is not None
    metrics._thread.join(60)
    assert not metrics._thread.is_alive()
    assert seen == [(3, {"run": "a"})] * len(seen)


def test_ray_that_takes_no_metrics_disturbs_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, tags: tuple[str, ...]) -> Any:
        raise RuntimeError("the cluster is gone")

    monkeypatch.setattr(ray_metrics, "_is_connected", lambda: True)
    monkeypatch.setattr(ray_metrics, "_gauge", broken)
    monkeypatch.setattr(ray_metrics, "_counter", broken)
    with RayMetrics(run="a") as metrics:
        metrics.set("mana_train_step", 3)
        metrics.add("mana_train_samples_total", 5)


def test_a_name_that_is_in_no_table_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_metrics, "_is_connected", lambda: True)
    with pytest.raises(KeyError):
        RayMetrics(run="a").add("mana_train_sample_total")
    with pytest.raises(KeyError):
        RayMetrics(run="a").set("mana_train_steps", 1)
