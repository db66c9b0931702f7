"""Ctrl-C and SIGTERM at the driver."""

import os
import signal

import pytest

from mana_dist.train.interrupts import Interrupts, Terminated


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "error", "name"), [(signal.SIGTERM, Terminated, "SIGTERM"), (signal.SIGINT, KeyboardInterrupt, "Ctrl-C")]
)
def test_the_first_asks_the_second_ends(number: signal.Signals, error: type[BaseException], name: str) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.asked.is_set()
        send(number)
        assert interrupts.asked.is_set()
        assert interrupts.reason == name
        with pytest.raises(error):
            send(signal.SIGTERM)
        assert isinstance(interrupts.error(), error)
    assert signal.getsignal(number) is before


def test_a_shell_sees_sigterm() -> None:
    assert Terminated().code == 128 + 15
