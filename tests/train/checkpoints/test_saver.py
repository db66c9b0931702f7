"""Checkpoints written behind training's back."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mana_dist import storage
from mana_dist.config import Config, RunConfig
from mana_dist.errors import UserError
from mana_dist.storage.retry import persistently
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.checkpoints.saver import PROMPT, Saver
from mana_dist.train.tracking.events import Checkpointed, Event


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(Config(run=RunConfig(name="one", storage=str(folder))))


def state(step: int, value: float = 1.0, size: int = 3) -> TrainState:
    return TrainState(step, {"weight": torch.full((size,), value)}, {"exp_avg.weight": torch.zeros(1)})


class Gate:
    """Holds every write of a file up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        write = storage.write_bytes

        def held(uri: str, data: bytes) -> None:
            assert self.opened.wait(60)
            write(uri, data)

        monkeypatch.setattr(storage, "write_bytes", held)


def test_training_goes_on_meanwhile_and_leaving_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, events = Gate(monkeypatch), list[Event]()
    with Saver(checkpoints(tmp_path), events.append) as saver:
        saver.submit(state(6), time.perf_counter())
        saver.check()
        assert events == []  # and here we are, training on
        gate.opened.set()
    (event,) = events
    assert isinstance(event, Checkpointed)
    assert event.step == 6
    assert event.waited <= event.seconds
    found = checkpoints(tmp_path).newest().state
    assert found is not None
    assert found.step == 6


def test_a_second_one_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, events = Gate(monkeypatch), list[Event]()
    with Saver(checkpoints(tmp_path), events.append) as saver:
        threading.Timer(PROMPT + 1.0, gate.opened.set).start()
        saver.submit(state(6), time.perf_counter())
        saver.submit(state(12), time.perf_counter())
    first, second = events
    assert isinstance(first, Checkpointed)
    assert isinstance(second, Checkpointed)
    assert (first.step, second.step) == (6, 12)
    assert 0.5 < second.waited < 10


def test_a_prompt_one_is_waited_for(tmp_path: Path) -> None:
    """So that a kill right afterwards costs no more than the steps since it was due."""
    events: list[Event] = []
    with Saver(checkpoints(tmp_path), events.append) as saver:
        saver.submit(state(6), time.perf_counter())
        assert [event.step for event in events if isinstance(event, Checkpointed)] == [6]


def failing_writes(monkeypatch: pytest.MonkeyPatch, times: int, error: OSError) -> None:
    left = [error] * times
    write = storage.write_bytes

    def sometimes(uri: str, data: bytes) -> None:
        if left and "model" in uri:
            raise left.pop()
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", sometimes)


def test_a_storage_that_comes_back_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_writes(monkeypatch, 2, OSError("AWS Error NETWORK_CONNECTION"))
    monkeypatch.setattr(persistently, "__kwdefaults__", {"patience": 20})
    with Saver(checkpoints(tmp_path), lambda _: None) as saver:
        saver.submit(state(6), time.perf_counter())
    found = checkpoints(tmp_path).newest().state
    assert found is not None
    assert found.step == 6


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("AWS Error"), r"cannot be written \(AWS Error\); mend run.storage"),
        (OSError(errno.ENOSPC, "full"), "no space left"),
    ],
)
def test_what_cannot_be_saved_stops_training_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    with Saver(checkpoints(tmp_path), lambda _: None) as saver:
        saver.submit(state(6), time.perf_counter())
        saver.wait()
        failing_writes(monkeypatch, 1, error)
        saver.submit(state(12), time.perf_counter())
        with pytest.raises(UserError, match=message):
            train_on(saver)
    found = checkpoints(tmp_path).newest()
    assert found.state is not None
    assert found.state.step == 6


def train_on(saver: Saver) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        saver.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_checkpoint_is_made_of_broken_weights(tmp_path: Path, value: float) -> None:
    saver = Saver(checkpoints(tmp_path), lambda _: None)
    saver.submit(state(6, value), time.perf_counter())
    with pytest.raises(UserError, match="weight weight is not finite after step 6"):
        saver.wait()
    assert checkpoints(tmp_path).newest().state is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_leaves_the_last_checkpoint_whole(small_disk: Path) -> None:
    run = checkpoints(small_disk)
    saver = Saver(run, lambda _: None)
    saver.submit(state(6, size=100_000), time.perf_counter())
    saver.submit(state(12, size=200_000), time.perf_counter())
    with pytest.raises(UserError, match=r"no space left for checkpoint .*00000012 .*make room there"):
        saver.wait()
    found = run.newest()
    assert found.state is not None
    assert found.state.step == 6
    assert not list(small_disk.glob("**/.*partial*"))  # no half-written file fills the disk
