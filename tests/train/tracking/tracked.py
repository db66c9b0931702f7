"""What the tests of tracking share: events, and a client that is no server's."""

import threading
from typing import Any

import numpy as np
from mlflow.entities import Metric, Run, RunData, RunInfo
from mlflow.exceptions import MlflowException

from mana_dist.train.tracking.delivery import Point
from mana_dist.train.tracking.events import Progress, Validated

PICTURE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def progress(step: int, count: int = 2) -> Progress:
    """Return a report on the ``count`` steps up to ``step``; each step's loss tells the step."""
    losses = tuple(float(number) for number in range(step - count + 1, step + 1))
    return Progress(1, step, 100, losses, 1e-3, 20.0, 0.01, 5.0, gradient_norms=losses, tflops=0.5, memory=2**30)


def validated(step: int, neighbour_gain: float | None = 0.25) -> Validated:
    return Validated(step, 30.0, 0.9, 28.0, 0.8, PICTURE, 1.5, neighbour_gain)


class FakeClient:
    """Remembers what it is given; can be away, slow to a standstill, or refuse."""

    tracking_uri = "http://fake"

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []
        self.norms: list[tuple[int, float]] = []
        self.last: dict[str, Point] = {}  # of each metric, as a server keeps it
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def _call(self, name: str) -> None:
        self.gate.wait()
        if self.error:
            raise self.error
        self.calls.append(name)

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self._call("metrics")
        for metric in metrics:
            point = Point(metric.key, metric.value, metric.timestamp, metric.step)
            before = self.last.get(point.key, point)
            self.last[point.key] = max(before, point, key=lambda point: (point.step, point.timestamp))
        self.losses += [(metric.step, metric.value) for metric in metrics if metric.key == "train/loss"]
        self.norms += [(metric.step, metric.value) for metric in metrics if metric.key == "train/gradient_norm"]

    def log_image(self, run_id: str, image: Any, *, key: str, step: int, timestamp: int) -> None:
        assert np.array_equal(np.asarray(image), PICTURE)
        self._call(f"{key} {step}")

    def get_run(self, run_id: str) -> Run:
        self._call("get_run")
        info = RunInfo(run_id, "0", "", "KILLED", 0, None, "active")
        return Run(info, RunData([Metric(p.key, p.value, p.timestamp, p.step) for p in self.last.values()]))

    def update_run(self, run_id: str, status: str) -> None:
        self._call(status)

    def list_artifacts(self, run_id: str, path: str) -> list[Any]:
        return []

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        self._call(status)


def last_points(**steps: int) -> dict[str, Point]:
    """What a run has: of the metric ``train_loss``, which is train/loss, the last step, and so on."""
    keys = {name.replace("_", "/", 1): step for name, step in steps.items()}
    return {key: Point(key, 0.0, 0, step) for key, step in keys.items()}


AWAY = MlflowException("API request to http://fake failed with exception: refused")


def steps(count: int) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in range(1, count + 1)]
