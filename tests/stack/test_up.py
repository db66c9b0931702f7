"""What a second `up` does to a stack that runs: it starts what is missing, and ends nothing."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mana_dist.errors import UserError
from mana_dist.stack import processes, stack, stack_layout
from mana_dist.stack.services import Service

WAITS = (sys.executable, "-c", "import time; time.sleep(600)")


class Machine:
    """Servers that are processes without a port; a test says which of them answer.

    Attributes:
        folder: of their stack.
        answers: by name, whether a server that runs answers.
        finished: the servers that were made ready for use, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, Callable[[], bool]] = {}
        self.finished: list[str] = []
        self.commands = {"store": WAITS, "head": WAITS}

    def services(self, made: stack_layout.Layout, cpus: int) -> tuple[Service, ...]:
        assert made.folder == self.folder
        return tuple(self._service(name) for name in self.commands)

    def _service(self, name: str) -> Service:
        def is_ready() -> bool:
            return name in self.running() and self.answers.get(name, lambda: True)()

        marked = {**os.environ, "NAME": name}
        return Service(
            name, self.commands[name], is_ready, environment=marked, finish=lambda: self.finished.append(name)
        )

    def fails(self, name: str) -> None:
        """From now on it ends as soon as it is started."""
        self.commands[name] = (sys.executable, "-c", "raise SystemExit('no memory')")
        self.answers[name] = lambda: False

    def running(self) -> dict[str, int]:
        """Ids of the servers' processes."""
        found = {}
        for process in processes.of_stack(self.folder):
            with contextlib.suppress(psutil.NoSuchProcess, KeyError):  # it ended meanwhile, and has no environment
                found[process.environ()["NAME"]] = process.pid
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path / "s")
    monkeypatch.setattr(stack, "services", made.services)
    yield made
    processes.stop(tmp_path / "s", seconds=0)


def kill(number: int) -> None:
    process = psutil.Process(number)
    process.send_signal(signal.SIGKILL)
    process.wait(60)  # until then it answers


def test_a_server_that_is_slow_to_answer_is_left_alone(machine: Machine) -> None:
    stack.up(machine.folder, cpus=1)
    before, told = machine.running(), iter([False, False, False])
    assert set(before) == {"store", "head"}
    machine.answers["head"] = lambda: next(told, True)
    stack.up(machine.folder, cpus=1)
    assert machine.running() == before
    assert next(told, "all asked") == "all asked"


def test_a_server_that_was_lost_is_started_beside_the_others(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_SLOW", 0.5)
    first = stack.up(machine.folder, cpus=1)
    before = machine.running()
    kill(before["head"])
    machine.finished.clear()
    assert stack.up(machine.folder, cpus=1) == first
    after = machine.running()
    assert after["store"] == before["store"]
    assert after["head"] != before["head"]
    assert machine.finished == ["store", "head"]


def test_one_that_does_not_start_again_takes_no_other_along(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_SLOW", 0.5)
    stack.up(machine.folder, cpus=1)
    before = machine.running()
    kill(before["head"])
    machine.fails("head")
    with pytest.raises(UserError, match=r"head does not start: no memory .*other servers still run, `down`"):
        stack.up(machine.folder, cpus=1)
    assert machine.running() == {"store": before["store"]}


def test_a_first_start_that_fails_leaves_nothing(machine: Machine) -> None:
    machine.fails("head")
    with pytest.raises(UserError, match="head does not start: no memory"):
        stack.up(machine.folder, cpus=1)
    assert machine.running() == {}
