"""Checkpoints in a bucket whose server goes away and comes back."""

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mana_dist.config import Config, RunConfig
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.checkpoints.saver import Saver
from mana_dist.train.tracking.events import Checkpointed, Event

seaweedfs: Any = pytest.importorskip("tests.s3.seaweedfs")
OUTAGE = 10.0
"""Seconds."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="weed-") as folder:
        weed = seaweedfs.SeaweedFS(Path(folder))
        weed.start()
        try:
            weed.create_buckets()
            for name, value in seaweedfs.OWNER.environment(weed.endpoint).items():
                monkeypatch.setenv(name, value)
            yield weed
        finally:
            weed.kill()


def state(step: int) -> TrainState:
    return TrainState(step, {"weight": torch.full((1_000_000,), float(step))}, {"exp_avg.weight": torch.zeros(1)})


def checkpoints() -> Checkpoints:
    return Checkpoints(Config(run=RunConfig(name="one", storage="s3://runs/kept", keep_checkpoints=2)))


@pytest.mark.cluster
def test_ten_seconds_without_the_store_lose_nothing(server: Any) -> None:
    events: list[Event] = []
    with Saver(checkpoints(), events.append) as saver:
        for step in (6, 12):
            saver.submit(state(step), time.perf_counter())
        saver.wait()
        server.kill()
        restart = threading.Timer(OUTAGE, server.start)
        restart.start()
        saver.submit(state(18), time.perf_counter())
        assert len(events) == 2  # training goes on without it
    restart.join()
    assert [event.step for event in events if isinstance(event, Checkpointed)] == [6, 12, 18]
    assert isinstance(events[-1], Checkpointed)
    assert events[-1].seconds > OUTAGE / 2 > events[-1].waited
    names = {key.split("/")[0] for key in server.keys("runs", "kept/one/")} - {""}  # the folder itself
    assert names == {"checkpoint_00000012", "checkpoint_00000018"}
    server.kill()
    restart = threading.Timer(OUTAGE, server.start)
    restart.start()
    found = checkpoints().newest()
    restart.join()
    assert found.state is not None
    assert found.state.step == 18
    assert torch.equal(found.state.weights["weight"], state(18).weights["weight"])
