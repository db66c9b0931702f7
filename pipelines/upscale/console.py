"""Keeping the console for our lines."""

import contextlib
import os
import threading
from collections.abc import Iterator

# Ray Data's workers restart, and Ray's core, which has no setting for it, prints for the first of them that their
# arguments might be lost by then: not while this process lives, which owns them.
_UNWANTED = b"has constructor arguments in the object store and max_restarts > 0"


@contextlib.contextmanager
def without_restart_warning() -> Iterator[None]:
    """Leave that line out of this process's standard error, whoever writes it."""
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    relay = threading.Thread(target=_relay, args=(reading, kept), daemon=True)
    relay.start()
    try:
        yield
    finally:
        os.dup2(kept, 2)  # with it the pipe is closed, unless a process that was started meanwhile has it still
        relay.join(timeout=1)


def _relay(reading: int, kept: int) -> None:
    with open(reading, "rb") as lines, open(kept, "wb", buffering=0) as stderr:
        for line in lines:
            if _UNWANTED not in line:
                stderr.write(line)
