"""A worker that makes no step says where it hangs, then ends."""

import threading
import time

import pytest

from mana_dist.train.elastic import watchdog
from mana_dist.train.elastic.watchdog import Watchdog


class Witness:
    """Stands in for the driver and the end of the process."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, str]] = []
        self.ended = threading.Event()

    def report(self, seconds: float, stacks: str) -> None:
        self.reports.append((seconds, stacks))

    def end(self, _code: int) -> None:
        self.ended.set()


def hang_in_a_dream(until: threading.Event) -> None:
    until.wait(60)


class Clock:
    """Stands in for the module ``time`` in the watchdog, and sees whether it looks."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = 0.0
        self._looked = threading.Event()

    def monotonic(self) -> float:
        now = self.now
        if threading.current_thread().name == "watchdog":
            self._looked.set()
        return now

    def pass_until_looked_at(self, seconds: float) -> None:
        """So much time goes by, and the watchdog has seen it."""
        self.now += seconds
        for _ in range(2):  # the first look may have begun before
            self._looked.clear()
            assert self._looked.wait(60)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(watchdog, "LINGER", 0.0)
    monkeypatch.setattr(watchdog, "time", fake)
    return fake


def test_a_hanging_worker_is_reported_with_all_stacks_and_ended(clock: Clock) -> None:
    witness = Witness()
    with Watchdog(2.0, witness.report, witness.end) as dog:
        for _ in range(3):
            clock.pass_until_looked_at(1.9)
            dog.beat()
        assert witness.reports == []
        clock.now += 2.5
        hang_in_a_dream(witness.ended)
        assert witness.ended.is_set()
    ((seconds, stacks),) = witness.reports
    assert seconds == pytest.approx(2.5)
    assert "hang_in_a_dream" in stacks
    assert stacks.count("Thread 0x") + stacks.count("Current thread") >= 2


def test_a_longer_step_can_be_announced(clock: Clock) -> None:
    witness = Witness()
    with Watchdog(0.2, witness.report, witness.end) as dog:
        dog.beat(patience=100)
        clock.pass_until_looked_at(19.0)
        assert witness.reports == []
        dog.beat()
        clock.now += 0.3
        assert witness.ended.wait(60)
