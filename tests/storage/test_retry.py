"""Storage that is out of reach for a while."""

import errno
import time
from collections.abc import Callable

import pytest

from mana_dist.storage.retry import persistently


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses made; the clock runs as if they were."""
    made: list[float] = []
    begun = time.monotonic()
    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr(time, "monotonic", lambda: begun + sum(made))
    return made


def failing(times: int, error: OSError) -> Callable[[str], str]:
    left = [error] * times

    def call(argument: str) -> str:
        if left:
            raise left.pop()
        return argument

    return call


def test_a_result_comes_at_once(pauses: list[float]) -> None:
    assert persistently(failing(0, OSError()), "done") == "done"
    assert pauses == []


def test_ten_seconds_out_of_reach_are_survived(pauses: list[float]) -> None:
    assert persistently(failing(7, OSError("AWS Error NETWORK_CONNECTION")), "done") == "done"
    assert sum(pauses) > 10
    assert pauses == sorted(pauses)
    assert max(pauses) <= 5


def test_after_a_minute_it_is_given_up(pauses: list[float]) -> None:
    with pytest.raises(OSError, match="gone"):
        persistently(failing(1000, OSError("gone")), "done")
    assert 50 < sum(pauses) <= 60


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS])
def test_what_waiting_does_not_mend_fails_at_once(pauses: list[float], number: int) -> None:
    with pytest.raises(OSError, match="why") as raised:
        persistently(failing(1, OSError(number, "why")), "done")
    assert raised.value.errno == number
    assert pauses == []
