"""All who tell of a training hear of every event; the summary adds them up."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mana_dist import config as configuration
from mana_dist import ray_metrics
from mana_dist.train.tracking.events import (
    Checkpointed,
    Event,
    Failed,
    Progress,
    Stalled,
    Started,
    Stopped,
    Validated,
)
from mana_dist.train.tracking.gauges import Gauges, figures
from mana_dist.train.tracking.observer import Observer
from mana_dist.train.tracking.summary import Summary

PICTURE = np.zeros((1, 1, 3), np.uint8)
CONFIG = configuration.parse(
    [
        *["--data.path", "x", "--data.batch_size", "5", "--run.name", "mine", "--run.checkpoint_every", "6"],
        *["--schedule.stage1.steps", "100", "--schedule.stage2.steps", "0", "--schedule.stage3.steps", "0"],
    ]
)


def progress(step: int) -> Progress:
    return Progress(
        *(1, step, 100, (0.5, 0.25), 1e-3, 20.0, 0.1, 5.0),
        seconds=10.0,
        samples=200,
        gradient_norms=(1.0, 2.0),
        tflops=3.0,
        peak_share=0.5,
        memory=1000,
    )


EVENTS: list[Event] = [
    Started(40, 2, "CPU", ()),
    progress(50),
    Checkpointed(50, 3.0, 1.0),
    progress(60),
    Validated(60, 30.0, 0.9, 28.0, 0.8, PICTURE, 4.0),
    Failed(1, "killed"),
    Started(50, 1, "CPU", ()),
    progress(60),
]


def test_the_summary_counts_steps_once_and_time_as_it_was_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 200.0))
    monkeypatch.setattr("mana_dist.train.tracking.summary.time.monotonic", lambda: next(clock))
    summary = Summary()
    for event in EVENTS:
        summary.add(event)
    first, second = summary.lines()
    assert first == (
        "summary: steps 41 to 60 (20), 600 samples in 1:40, 6.0 samples/s "
        "(20.0 samples/s and 3 TFLOP/s while training); "
        "1 restart(s), 1 worker failure(s)"
    )
    assert second == (
        "time: training 27.0%, waiting for data 3.0%, checkpoints 1.0%, validation 4.0%, "
        "starting, stopping and the rest 65.0%"
    )


def test_without_a_start_there_is_nothing_to_sum_up() -> None:
    summary = Summary()
    summary.add(Failed(0, "no"))
    assert summary.lines() == []


def test_figures_for_ray() -> None:
    found = figures(progress(50))
    assert found["mana_train_loss"] == 0.375
    assert found["mana_train_gradient_norm"] == 2.0
    assert found["mana_train_mfu_ratio"] == 0.5
    assert found["mana_train_flops"] == 3e12
    assert figures(Checkpointed(50, 3.0, 1.0)) == {
        "mana_train_checkpoint_step": 50.0,
        "mana_train_checkpoint_seconds": 3.0,
        "mana_train_checkpoint_wait_seconds": 1.0,
    }
    assert figures(Stalled(1, 2.0, "")) == {}
    validated = Validated(60, 30.0, 0.9, 28.0, 0.8, PICTURE)
    assert figures(validated) == {"mana_validation_psnr_decibels": 30.0, "mana_validation_ssim": 0.9}
    gained = dataclasses.replace(validated, neighbour_gain=0.25)
    assert figures(gained) == {**figures(validated), "mana_validation_neighbour_gain_decibels": 0.25}


class FakeTracker:
    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[Event] = []
        self._error = error

    def log(self, event: Event) -> None:
        self.seen.append(event)
        if self._error:
            raise self._error


class FakeMetric:
    """Ray's gauge or counter, as far as it is used; without a cluster the real ones record nothing to ask for."""

    values: dict[str, list[float]] = {}  # noqa: RUF012

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        assert tag_keys == ("run",)
        self._name = name
        assert name not in self.values  # Ray warns of a metric made twice
        self.values[name] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tags == {"run": "mine"}
        self.values[self._name].append(value)

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0  # Ray's own condition
        self.set(value, tags)


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeMetric]]:
    monkeypatch.setattr("ray.util.metrics.Gauge", FakeMetric)
    monkeypatch.setattr("ray.util.metrics.Counter", FakeMetric)
    monkeypatch.setattr(FakeMetric, "values", {})
    monkeypatch.setattr(ray_metrics, "_is_connected", lambda: True)
    monkeypatch.setattr(ray_metrics, "_AGAIN", 3600.0)
    monkeypatch.setattr("mana_dist.train.tracking.gauges.time.time", lambda: 1e9)
    made = (ray_metrics._gauge, ray_metrics._counter)
    for metrics in made:
        metrics.cache_clear()
    yield FakeMetric
    for metrics in made:
        metrics.cache_clear()


def test_everybody_hears_of_every_event(gauges: type[FakeMetric], capsys: pytest.CaptureFixture[str]) -> None:
    tracker: Any = FakeTracker()
    observer = Observer(tracker, CONFIG)
    for event in EVENTS:
        observer.see(event)
    observer.close()
    assert tracker.seen == EVENTS
    assert gauges.values["mana_train_step"] == [40, 50, 60, 50, 60]
    assert gauges.values["mana_validation_psnr_decibels"] == [30.0]
    assert gauges.values["mana_train_samples_total"] == [10, 10, 10]  # batches of five
    assert gauges.values["mana_train_restarts_total"] == [1, 1]  # it went on from step 40, and again
    assert gauges.values["mana_train_worker_failures_total"] == [1]
    assert gauges.values["mana_train_checkpoint_step"] == [40, 50, 50]
    assert gauges.values["mana_train_checkpoint_every_steps"] == [6, 6]
    assert gauges.values["mana_train_last_step_timestamp_seconds"] == [1e9] * 5
    assert "mana_train_ended_timestamp_seconds" not in gauges.values
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EVENTS) + 2
    assert lines[0] == "resuming after step 40: 2 worker(s) on CPU"
    assert lines[-2].startswith("summary: steps 41 to 60")


@pytest.mark.parametrize("last", [progress(100), Stopped(60, "SIGTERM"), Started(100, 2, "CPU", ())])
def test_a_run_that_ended_in_order_says_so_unless_a_sweep_looks_after_it(gauges: type[FakeMetric], last: Event) -> None:
    for alone in (False, True):
        observer = Gauges(CONFIG, alone=alone)
        for event in (Started(40, 2, "CPU", ()), progress(50), last):
            observer.set(event)
        observer.close()
        assert ("mana_train_ended_timestamp_seconds" in gauges.values) is alone
        assert ("mana_train_last_step_timestamp_seconds" in gauges.values) is alone


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
def test_without_a_console_the_others_hear_of_every_event(
    gauges: type[FakeMetric], monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    monkeypatch.setattr("sys.stdout", Closed())
    tracker: Any = FakeTracker()
    observer = Observer(tracker, CONFIG)
    for event in EVENTS:
        observer.see(event)
    observer.close()
    assert tracker.seen == EVENTS
    assert gauges.values["mana_train_step"] == [40, 50, 60, 50, 60]


def test_an_event_that_cannot_be_put_in_words_is_tracked(
    gauges: type[FakeMetric], capsys: pytest.CaptureFixture[str]
) -> None:
    tracker: Any = FakeTracker()
    odd = dataclasses.replace(progress(50), eta_seconds=float("nan"))
    with contextlib.closing(Observer(tracker, CONFIG)) as observer:
        observer.see(odd)
    assert tracker.seen == [odd]
    assert "warning: Progress is not tracked" in capsys.readouterr().out


def test_a_broken_tracker_disturbs_nobody(gauges: type[FakeMetric], capsys: pytest.CaptureFixture[str]) -> None:
    tracker: Any = FakeTracker(OSError("no room"))
    with contextlib.closing(Observer(tracker, CONFIG)) as observer:
        observer.see(progress(50))
    assert "warning: Progress is not tracked: no room" in capsys.readouterr().out
    assert gauges.values["mana_train_loss"] == [0.375]
