"""Thread priorities that an encoder raises, restored."""

import contextlib
import os
from collections.abc import Iterator

_TASKS = "/proc/self/task"
_REAL_TIME = {getattr(os, name, None) for name in ("SCHED_FIFO", "SCHED_RR")}


@contextlib.contextmanager
def no_real_time() -> Iterator[None]:
    """Give threads that become real-time ones in this context the scheduling of this thread, in the end.

    SVT-AV1 (4.1), run as root as in most containers, gives the highest real-time priority to its threads and to the
    one that opens it, whose children inherit it; it has no setting for that. Hardly anything else then gets a core
    where they compute: servers starve, and Ray takes the node for dead. Only Linux lists priorities by thread.
    """
    if not os.path.isdir(_TASKS):
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)  # 0: this thread
    before = real_time_threads()
    try:
        yield
    finally:
        for raised in real_time_threads() - before:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setscheduler(raised, policy, parameter)


def real_time_threads() -> set[int]:
    """Return the real-time threads of this process by the kernel's numbers (Linux alone)."""
    found = set()
    for thread in map(int, os.listdir(_TASKS)):
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(thread) in _REAL_TIME:
                found.add(thread)
    return found
