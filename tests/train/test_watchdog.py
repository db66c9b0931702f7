"""A worker that makes no step says where it hangs, then ends."""

import threading
import time

from mana_dist.train import watchdog
from mana_dist.train.watchdog import Watchdog


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
    until.wait(30)


def test_who_hangs_is_told_with_all_stacks_and_ended(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(watchdog, "LINGER", 0.0)
    witness = Witness()
    with Watchdog(2.0, witness.report, witness.end) as dog:
        for _ in range(30):
            time.sleep(0.1)
            dog.beat()
        assert witness.reports == []
        before = time.monotonic()
        hang_in_a_dream(witness.ended)
        assert time.monotonic() - before < 30
    ((seconds, stacks),) = witness.reports
    assert 2.0 < seconds < 30
    assert "hang_in_a_dream" in stacks
    assert stacks.count("Thread 0x") + stacks.count("Current thread") >= 2


def test_a_longer_step_can_be_announced(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(watchdog, "LINGER", 0.0)
    witness = Witness()
    with Watchdog(0.2, witness.report, witness.end) as dog:
        dog.beat(patience=100)
        time.sleep(1.0)
        assert witness.reports == []
        dog.beat()
        assert witness.ended.wait(10)
