"""Ctrl-C and SIGTERM at the driver."""

import os
import signal

import pytest

from mana_dist.train.elastic.interrupts import Interrupts, Terminated


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "error", "name"), [(signal.SIGTERM, Terminated, "SIGTERM"), (signal.SIGINT, KeyboardInterrupt, "Ctrl-C")]
)
def test_the_first_requests_an_end_the_second_ends(
    number: signal.Signals, error: type[BaseException], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    now = [100.0]
    monkeypatch.setattr("mana_dist.train.elastic.interrupts.time.monotonic", lambda: now[0])
    with Interrupts() as interrupts, interrupts.awaited():
        assert not interrupts.requested.is_set()
        send(number)
        assert interrupts.requested.is_set()
        assert interrupts.reason == name
        now[0] += 0.4
        send(signal.SIGTERM)  # at the same time: sent to the process, and to its group
        assert interrupts.reason == name
        now[0] += 0.2
        with pytest.raises(error):
            send(signal.SIGTERM)
        assert isinstance(interrupts.error(), error)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_before_training_the_first_ends(number: signal.Signals, error: type[BaseException]) -> None:
    with Interrupts() as interrupts:
        with pytest.raises(error):
            send(number)
        assert interrupts.requested.is_set()


def test_handlers_that_ray_installs_are_replaced() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with interrupts.awaited():
            send(signal.SIGTERM)
        assert interrupts.reason == "SIGTERM"
        assert interrupts.requested.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_shell_sees_sigterm() -> None:
    assert Terminated().code == 128 + 15
