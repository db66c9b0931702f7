"""One attempt at a time owns a folder: a run's, a sweep's, a dataset's.

A small file in the folder, ``.lease``, names the owner. While it lives, a thread of it renews the file. Whoever wants
the folder watches the file, by a clock of its own: no two clocks are compared. If the file stays as it is for a whole
lease, its owner is silent, and one of those who watch takes the folder over. If it is renewed, the folder is refused.
While the storage does not answer nobody is counted as silent. An owner on this machine whose process is gone need not
be waited for, and one that ends in order deletes the file.

An owner that was halted and goes on may have lost its folder meanwhile. So it makes sure before each step that others
see (:meth:`Lease.check`; in other processes :meth:`Fence.check`), and stops if it has: what it does within a lease of
having made sure, nobody else's work can cross. What remains is a halt of more than a lease inside a single write.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

from mana_dist import storage
from mana_dist.console import log
from mana_dist.errors import UserError, terminable
from mana_dist.storage import swap
from mana_dist.storage.retry import PATIENCE, is_lasting, persistently

FILE = ".lease"
LENGTH = 30.0
"""Seconds without a renewal after which an owner counts as silent."""

_RENEWALS = 6  # in a lease: a storage may leave some of them unanswered
_ENDED = "ZX"  # states of processes that are there only because nobody has asked yet how they ended


class LostError(UserError):
    """Another attempt has the folder now."""


class Clock(Protocol):
    """The clock of whoever watches a lease; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


@dataclass(frozen=True)
class Owner:
    """Who has a folder, as the file in it says."""

    attempt: str = ""  # a name that no other attempt has
    host: str = "an unknown host"  # where its process runs
    pid: int = 0  # its process there
    machine: str = ""  # the running kernel, and which of its processes can be told apart by their ids; empty: not known
    started: int = 0  # when the process was started, in ticks of that kernel's
    since: str = "an unknown time"  # when it took the folder, for people
    renewal: int = 0  # counts up while it lives

    @classmethod
    def here(cls) -> Self:
        """Return this process, now."""
        pid = os.getpid()
        return cls(
            attempt=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=pid,
            machine=_machine(),
            started=(_state(pid) or ("", 0))[1],
            since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        )

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return what :meth:`encode` wrote; of anything else an unknown owner, who can be watched all the same."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return cls()

    def encode(self) -> bytes:
        """Return the file's content."""
        return json.dumps(asdict(self)).encode()

    def is_gone(self) -> bool:
        """Return whether this is known: it was a process of this very machine, which has ended."""
        if not self.machine or (self.host, self.machine) != (socket.gethostname(), _machine()):
            return False
        found = _state(self.pid)
        if found is None:
            return not _exists(self.pid)
        state, started = found
        return state in _ENDED or started != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@dataclass(frozen=True)
class Fence:
    """Lets other processes of the owner's make sure that the folder is still its; can be sent to them."""

    folder: str  # URI
    name: str  # of what lies in it, for people
    attempt: str  # the owner's

    def check(self, patience: float = PATIENCE) -> None:
        """Make sure that the folder is still the owner's; a storage out of reach is tried for ``patience`` seconds.

        Raises:
            LostError: it is not.
            OSError: that cannot be found out.
        """
        content = persistently(swap.read, _file(self.folder), patience=patience)
        if content is None or Owner.parse(content).attempt != self.attempt:
            raise _lost(self.name, content)

    def is_seen(self) -> bool:
        """Return whether the owner's file is seen from here: on a node that does not share the folder it is not."""
        content = swap.read(_file(self.folder))
        return content is not None and Owner.parse(content).attempt == self.attempt


@dataclass
class Lease:
    """A folder that is this process's, as long as :meth:`check` does not say otherwise; made by :func:`hold`."""

    folder: str  # URI
    name: str  # of what lies in it, for people
    owner: Owner  # this process, and how often it has renewed
    length: float = LENGTH  # seconds
    _lost: str = field(default="", init=False)
    _renewed: float = field(default=float("-inf"), init=False)
    _mutex: threading.Lock = field(default_factory=threading.Lock, init=False)
    _released: threading.Event = field(default_factory=threading.Event, init=False)

    @property
    def fence(self) -> Fence:
        """The check for other processes."""
        return Fence(self.folder, self.name, self.owner.attempt)

    @property
    def is_lost(self) -> bool:
        """Return whether it is known by now that another attempt has the folder; asks nobody."""
        return bool(self._lost)

    def check(self) -> None:
        """Make sure, before a step that others see, that the folder is this process's for some time to come.

        Asks the storage; one that is out of reach is tried again for a minute.

        Raises:
            LostError: another attempt has it.
            OSError: that cannot be found out.
        """
        persistently(self.renew)
        self.heed()

    def check_lately(self) -> None:
        """As :meth:`check`, but asks nobody where the last answer is young enough; for steps that come often."""
        if _now() - self._renewed > self.length / 3:
            self.check()
        self.heed()

    def heed(self) -> None:
        """Raise LostError if the folder :attr:`is_lost`."""
        if self._lost:
            raise LostError(self._lost)

    def renew(self) -> None:
        """Show that the owner lives, or find out that the folder is lost; an OSError says neither."""
        with self._mutex:
            if self._lost or self._released.is_set():
                return
            begun, renewed = _now(), replace(self.owner, renewal=self.owner.renewal + 1)
            if swap.swap(_file(self.folder), self.owner.encode(), renewed.encode()):
                self.owner, self._renewed = renewed, begun
            else:
                self._lost = str(_lost(self.name, swap.read(_file(self.folder))))

    def keep(self) -> None:
        """Renew until :meth:`release`; for a thread."""
        while not self._released.wait(self.length / _RENEWALS) and not self._lost:
            with contextlib.suppress(OSError):  # the next time, or the time after
                self.renew()

    def release(self) -> None:
        """Give the folder back, if it is still this process's and the storage answers."""
        with contextlib.suppress(OSError):
            self.renew()  # then nobody takes it between this and the next
            with self._mutex:
                if not self._lost:
                    swap.swap(_file(self.folder), self.owner.encode(), None)
        self._released.set()


@contextlib.contextmanager
def hold(
    folder: str, name: str, other: str, *, patient: bool = False, length: float = LENGTH, clock: Clock = time
) -> Iterator[Lease]:
    """Own a folder while the context is open; SIGTERM leaves the context as Ctrl-C does.

    Args:
        folder: URI; made where it is not there.
        name: of what lies in it, for people.
        other: what to do instead of waiting for its owner, for people.
        patient: wait a whole lease for an owner that lives, which may be about to end.
        length: seconds of a lease; the same for all who want the folder.
        clock: tells this process how long an owner has been silent.

    Raises:
        UserError: another attempt has the folder and lives, or the storage cannot be used.
    """
    try:
        lease = _taken(folder, name, other, patient or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ, length, clock)
    except OSError as error:
        raise UserError(f"{name}: cannot write {_file(folder)} ({error}); mend its storage or {other}") from error
    threading.Thread(target=lease.keep, name="lease", daemon=True).start()
    try:
        with terminable():
            yield lease
    finally:
        lease.release()


def _taken(folder: str, name: str, other: str, patient: bool, length: float, clock: Clock) -> Lease:
    lease = Lease(folder, name, Owner.here(), length)
    mine, seen = lease.owner.encode(), None
    begun = since = answered = clock.monotonic()
    is_watched = False
    while True:
        asked = clock.monotonic()
        try:
            found = swap.read(_file(folder))
            owner = Owner.parse(found or b"")
            if found != seen:
                if None not in (found, seen) and (not patient or asked - begun >= length):
                    raise UserError(
                        f"{name} belongs to another attempt, which is at work ({owner}); wait for it, stop "
                        f"it, or {other}"
                    )
                seen, since = found, clock.monotonic()
            is_free = found in (None, mine) or owner.is_gone() or asked - since >= length
            if is_free and swap.swap(_file(folder), found, mine):
                return lease
            answered = clock.monotonic()
        except OSError as error:
            if is_lasting(error) or clock.monotonic() - answered > PATIENCE:
                raise
            seen = None  # the owner may live and have no answer either
        else:
            if not is_free and not is_watched:
                is_watched = True
                log.info(f"{name} belongs to another attempt ({owner}); taking it over if that is silent")
        clock.sleep(length / _RENEWALS / 5)


def _lost(name: str, content: bytes | None) -> LostError:
    stop = "so this one stops and writes nothing more"
    if content is None:
        return LostError(f"{name}: its {FILE} is gone, another attempt may have had it meanwhile, {stop}")
    return LostError(f"{name} was taken over by another attempt ({Owner.parse(content)}) while this was silent, {stop}")


def _file(folder: str) -> str:
    return storage.join(folder, FILE)


def _now() -> float:
    """Seconds that go on while the machine sleeps: others then see this process as silent."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _machine() -> str:
    """The boot of the kernel and the namespace of process ids: pods of a node share the first alone."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # another namespace's ids are shown there
            return ""
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, int] | None:
    """A process's state and the time of its start, in ticks; None where none is shown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return fields[0], int(fields[19])


def _exists(pid: int) -> bool:
    """Return whether there is such a process; it may be hidden in /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
