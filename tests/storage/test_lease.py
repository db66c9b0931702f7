"""One owner of a folder at a time, by a clock that the tests turn: nobody here waits for a real one."""

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mana_dist.errors import UserError
from mana_dist.storage import swap
from mana_dist.storage.lease import Lease, LostError, Owner, hold

LENGTH = 30.0


@dataclass
class FakeClock:
    """Goes on only while somebody sleeps; ``then`` is called with the new time after each sleep."""

    then: Callable[[float], None] = lambda _: None
    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        self.slept.append(seconds)
        self.then(self.now)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "runs" / "one")


def elsewhere(folder: str, since: str = "2026-11-29 20:00:00 UTC") -> Lease:
    """A folder's owner on another machine, of which nothing can be known but its renewals."""
    owner = replace(Owner.here(), host="node7", pid=4711, machine="another kernel", since=since)
    assert swap.swap(f"{folder}/.lease", swap.read(f"{folder}/.lease"), owner.encode())
    return Lease(folder, "run one", owner, LENGTH)


def take(folder: str, clock: FakeClock, *, patient: bool = False) -> AbstractContextManager[Lease]:
    return hold(folder, "run one", "give another run.name", patient=patient, length=LENGTH, clock=clock)


def test_a_free_folder_is_had_at_once_and_given_back(folder: str) -> None:
    clock = FakeClock()
    with take(folder, clock) as held:
        held.check()
        held.fence.check()
        assert held.fence.is_seen()
        assert [path.name for path in Path(folder).iterdir()] == [".lease"]
    assert list(Path(folder).iterdir()) == []
    with take(folder, clock):
        pass
    assert clock.slept == []


def test_an_owner_that_renews_refuses_with_one_line_that_names_it(folder: str) -> None:
    owner = elsewhere(folder)
    with pytest.raises(UserError) as told, take(folder, FakeClock(lambda _: owner.renew())):
        pass
    since = owner.owner.since
    assert str(told.value) == (
        f"run one belongs to another attempt, which is at work (process 4711 on node7, since {since}); "
        "wait for it, stop it, or give another run.name"
    )
    owner.check()  # the refused one has changed nothing


def test_a_silent_owner_is_replaced_after_a_lease_and_no_sooner(folder: str) -> None:
    owner, clock = elsewhere(folder), FakeClock()
    with take(folder, clock) as held:
        assert LENGTH <= clock.now < LENGTH * 1.1
        with pytest.raises(LostError, match=r"run one was taken over by another attempt \(process \d+ on "):
            owner.check()
        with pytest.raises(LostError):
            owner.fence.check()
        owner.release()  # what it does now changes nothing
        held.check()


def test_clocks_of_other_machines_are_not_believed(folder: str) -> None:
    elsewhere(folder, since="2001-01-01 00:00:00 UTC")
    clock = FakeClock()
    with take(folder, clock):
        assert clock.now >= LENGTH


def test_the_patient_wait_for_an_owner_that_is_about_to_end(folder: str) -> None:
    owner = elsewhere(folder)

    def ends(now: float) -> None:
        owner.renew() if now < LENGTH / 2 else owner.release()

    with take(folder, FakeClock(ends), patient=True):
        pass


def test_the_patient_are_refused_by_an_owner_that_stays(folder: str) -> None:
    owner = elsewhere(folder)
    clock = FakeClock(lambda now: owner.renew())
    with (
        pytest.raises(UserError, match="belongs to another attempt, which is at work"),
        take(folder, clock, patient=True),
    ):
        pass
    assert LENGTH <= clock.now < LENGTH * 1.1


def test_a_storage_that_does_not_answer_makes_nobody_silent(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, read, write = elsewhere(folder), swap.read, swap.swap
    out = [LENGTH / 2, LENGTH * 2.3]

    def away() -> None:
        if out[0] < clock.now < out[1]:
            raise OSError(5, "no answer")

    def reading(uri: str) -> bytes | None:
        away()
        return read(uri)

    def swapping(uri: str, old: bytes | None, new: bytes | None) -> bool:
        away()
        return write(uri, old, new)

    def answers_late(now: float) -> None:
        if now > out[1] + LENGTH / 2:  # the owner's first answer after the outage
            owner.renew()

    clock = FakeClock(answers_late)
    monkeypatch.setattr(swap, "read", reading)
    monkeypatch.setattr(swap, "swap", swapping)
    with pytest.raises(UserError, match="at work"), take(folder, clock):
        pass
    owner.check()  # silent for nearly three leases, and alive
    out[1] = 1e9
    with (
        pytest.raises(UserError, match=r"run one: cannot write .*\.lease \(.*no answer\); mend its storage"),
        take(folder, clock),
    ):
        pass


def test_an_owner_whose_renewals_fail_lives_on(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with take(folder, FakeClock()) as held:
        with monkeypatch.context() as broken:
            broken.setattr(swap, "swap", lambda *_: (_ for _ in ()).throw(OSError(5, "no answer")))
            with pytest.raises(OSError, match="no answer"):
                held.renew()
            held.heed()
        held.check()


def test_an_answer_that_was_lost_is_no_loss(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = swap.swap

    def unheard(uri: str, old: bytes | None, new: bytes | None) -> bool:
        write(uri, old, new)
        raise OSError(5, "the answer is lost")

    with monkeypatch.context() as broken:
        broken.setattr(swap, "swap", unheard)
        clock = FakeClock(lambda _: broken.setattr(swap, "swap", write))
        with take(folder, clock) as held:
            broken.setattr(swap, "swap", unheard)
            with pytest.raises(OSError, match="lost"):
                held.renew()
            broken.setattr(swap, "swap", write)
            held.check()


def test_who_deletes_the_file_takes_the_folder(folder: str) -> None:
    with take(folder, FakeClock()) as held:
        os.unlink(f"{folder}/.lease")
        with pytest.raises(LostError, match=r"its \.lease is gone"):
            held.check()
        with pytest.raises(LostError):
            held.fence.check()
        with pytest.raises(LostError):
            held.heed()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": 1}', b"\xff"])
def test_what_cannot_be_read_is_watched_like_an_owner(folder: str, content: bytes) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder, ".lease").write_bytes(content)
    clock = FakeClock()
    with take(folder, clock):
        assert clock.now >= LENGTH


def test_a_file_that_was_made_and_never_written_holds_nothing(folder: str) -> None:
    Path(folder).mkdir(parents=True)
    Path(folder, ".lease").touch()
    clock = FakeClock()
    with take(folder, clock):
        assert clock.now == 0


HOLDER = """
import sys, time
from mana_dist.storage.lease import hold
with hold(sys.argv[1], "run one", "do not"):
    print("held", flush=True)
    while True:
        time.sleep(0.05)  # a signal that comes while it is halted may go to another thread, which does not wake this
"""


@pytest.fixture
def holder(folder: str) -> Iterator[subprocess.Popen[str]]:
    """Another process on this machine that has the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_after_kill_9_on_this_machine_nobody_waits(folder: str, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as in a container without an init
    clock = FakeClock()
    with take(folder, clock):
        assert clock.now == 0
    holder.wait()
    assert not Owner.here().is_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_gives_the_folder_back(folder: str, holder: subprocess.Popen[str], number: signal.Signals) -> None:
    holder.send_signal(number)
    assert holder.wait() == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert list(Path(folder).iterdir()) == []


def test_a_halted_owner_notices_that_it_was_replaced(folder: str, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    clock = FakeClock()
    with take(folder, clock) as held:
        assert clock.now >= LENGTH  # it is there: its silence alone counts
        holder.send_signal(signal.SIGCONT)
        holder.send_signal(signal.SIGTERM)  # it tries to give the folder back, which is not its any more
        assert holder.wait() == 143
        held.check()


def test_a_process_of_another_machine_is_not_looked_for_here(folder: str) -> None:
    gone = replace(Owner.here(), pid=2**22 + 1)
    assert gone.is_gone()
    assert replace(gone, pid=os.getpid(), started=1).is_gone()  # the id was given to another process
    # A pod may have its node's kernel and its own process ids; a copy of a machine may have its name.
    assert not replace(gone, machine=f"{gone.machine}1").is_gone()
    assert not replace(gone, host="another").is_gone()
    assert not replace(gone, machine="").is_gone()


def test_of_many_threads_at_once_one_wins(folder: str) -> None:
    start, won, leave = threading.Barrier(16), threading.Event(), threading.Event()
    winners: list[Lease] = []

    def owner_lives(_: float) -> None:
        won.wait()
        winners[0].renew()

    def attempt(_: int) -> str:
        start.wait()
        try:
            with take(folder, FakeClock(owner_lives)) as held:
                winners.append(held)
                won.set()
                leave.wait()
        except UserError as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(16) as pool:
        attempts = [pool.submit(attempt, number) for number in range(16)]
        refused = [done.result() for done in itertools.islice(as_completed(attempts), 15)]
        leave.set()
    assert len(winners) == 1
    assert all("at work" in line for line in refused)


def storm(folder: str, number: int, rounds: int) -> None:
    """Take over from whoever is there, again and again; write down each success, and what it replaced."""
    for count in range(rounds):
        mine = json.dumps([number, count]).encode()
        while True:
            old = swap.read(f"{folder}/.lease")
            if swap.swap(f"{folder}/.lease", old, mine):
                break
        Path(folder, f"{number}-{count}").write_bytes(old or b"")


def test_of_many_processes_each_success_replaces_another_one(tmp_path: Path) -> None:
    context, workers, rounds = multiprocessing.get_context("fork"), 6, 40
    processes = [context.Process(target=storm, args=(str(tmp_path), number, rounds)) for number in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    replaced = [(tmp_path / f"{number}-{count}").read_bytes() for number in range(workers) for count in range(rounds)]
    left = (tmp_path / ".lease").read_bytes()
    written = {json.dumps([number, count]).encode() for number in range(workers) for count in range(rounds)}
    assert sorted([*replaced, left]) == sorted([*written, b""])  # a chain: nothing replaced twice, nothing lost
