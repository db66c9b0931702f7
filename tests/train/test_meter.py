"""What is measured between two reports; two workers are played by one whose sums are doubled."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mana_dist.config import Config, DataConfig, RunConfig, ScheduleConfig, StageConfig
from mana_dist.model import ModelConfig
from mana_dist.train.meter import Meter
from mana_dist.train.planning.costs import Peak, sample_cost
from mana_dist.train.schedule import Stage, stages
from mana_dist.train.tracking.events import Event, Progress

CONFIG = Config(
    model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4),
    schedule=ScheduleConfig(
        stage1=StageConfig(steps=30, lr=1e-3), stage2=StageConfig(steps=0), stage3=StageConfig(steps=70)
    ),
    data=DataConfig(batch_size=6, crop=12),
    run=RunConfig(precision="fp32"),
)


class FakeFeed:
    waited = 0.0


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make(sent: list[Event], feed: FakeFeed, stage: Stage | None = None) -> Meter:
    peak = Peak(1e9, "a test")
    return Meter(CONFIG, stage or stages(CONFIG)[0], feed, sent.append, torch.device("cpu"), peak)  # type: ignore[arg-type]


def only(sent: list[Event]) -> Progress:
    (event,) = sent
    assert isinstance(event, Progress)
    return event


@pytest.mark.usefixtures("alone")
def test_a_report_sums_the_workers_and_holds_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(2))
    sent: list[Event] = []
    meter = make(sent, FakeFeed())
    for loss, norm in ((0.25, 1.0), (0.125, 2.0)):
        meter.add(torch.tensor(loss), torch.tensor(norm))
    assert meter.report(12) == (0.5, 0.25)
    event = only(sent)
    assert (event.stage, event.step, event.total, event.lr) == (1, 12, 100, 1e-3)
    assert event.losses == (0.5, 0.25)
    assert event.gradient_norms == meter.gradient_norms == (1.0, 2.0)
    assert event.samples == 12
    assert event.memory > 2**20


@pytest.mark.usefixtures("alone")
def test_pace_waiting_and_work_are_of_the_measured_interval() -> None:
    sent: list[Event] = []
    feed = FakeFeed()
    feed.waited = 100.0  # before this stage
    meter = make(sent, feed)
    time.sleep(0.3)  # a validation, say: not training
    before = time.perf_counter()
    meter.restart()
    for _ in range(2):
        meter.add(torch.tensor(1.0), torch.tensor(1.0))
        time.sleep(0.1)
    feed.waited += 0.05
    meter.report(2)
    event = only(sent)
    assert 0.2 <= event.seconds <= time.perf_counter() - before
    assert event.data_wait == pytest.approx(0.05 / event.seconds)
    assert event.samples_per_second == pytest.approx(12 / event.seconds)
    assert event.eta_seconds == pytest.approx(98 * event.seconds / 2)
    flops = sample_cost(CONFIG.model, stages(CONFIG)[0], 12, "fp32").flops
    assert event.tflops == pytest.approx(flops * 12 / event.seconds / 1e12)
    assert event.peak_share == pytest.approx(event.tflops * 1e12 / 1e9)


@pytest.mark.usefixtures("alone")
def test_steps_before_a_restart_are_reported_but_not_timed() -> None:
    sent: list[Event] = []
    meter = make(sent, FakeFeed())
    meter.add(torch.tensor(1.0), torch.tensor(1.0))
    meter.restart()
    meter.add(torch.tensor(2.0), torch.tensor(1.0))
    meter.report(2)
    assert only(sent).losses == (1.0, 2.0)
    assert only(sent).samples == 6


@pytest.mark.usefixtures("alone")
def test_losses_are_taken_once_over_several_reports() -> None:
    meter = make([], FakeFeed())
    for step in (1, 2, 3):
        meter.add(torch.tensor(float(step)), torch.tensor(1.0))
        meter.report(step)
    assert meter.take_losses() == (1.0, 2.0, 3.0)
    assert meter.take_losses() == ()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.inf)])
def test_steps_from_the_first_that_is_not_finite_on_are_not_reported(loss: float, norm: float) -> None:
    """They are done again after a resume, and would stay in MLflow."""
    sent: list[Event] = []
    meter = make(sent, FakeFeed())
    for step_loss, step_norm in ((0.5, 1.0), (0.25, 1.0), (loss, norm), (0.75, 1.0)):
        meter.add(torch.tensor(step_loss), torch.tensor(step_norm))
    losses = meter.report(14)
    assert len(losses) == len(meter.gradient_norms) == 4  # for whoever looks for the first bad step
    assert (only(sent).step, only(sent).losses) == (12, (0.5, 0.25))
    assert meter.take_losses() == (0.5, 0.25)
    meter.add(torch.tensor(math.nan), torch.tensor(1.0))
    meter.report(15)
    assert len(sent) == 1
