"""The watchdog of a worker: one that makes no more steps reports where it hangs and ends."""

import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Self

LINGER = 5.0
"""Seconds between a worker's report and its end, so that the others, which wait for it, can report too."""

_BACKSTOP = 60.0  # beyond the timeout; for a thread that hangs without giving up the interpreter's lock


class Watchdog:
    """Watches the thread that trains, from a thread of its own. Use as a context manager.

    A hanging thread cannot be interrupted, so the process ends; Ray Train then restarts all workers.

    Args:
        timeout: seconds without a :meth:`beat` after which the process ends.
        report: called with the seconds since the last beat and the stacks of all threads.
        end: ends the process.
    """

    def __init__(
        self,
        timeout: float,
        report: Callable[[float, str], None],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._timeout = timeout
        self._report = report
        self._end = end
        self._finished = threading.Event()
        self.beat()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, patience: float = 1.0) -> None:
        """Give a sign of life; the next may take ``patience`` times as long as usual."""
        self._beaten, self._allowed = time.monotonic(), self._timeout * patience

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        interval = min(1.0, self._timeout / 10)
        while not self._finished.wait(interval):
            # Needs no lock of Python's: it works even where this loop cannot go on.
            faulthandler.dump_traceback_later(self._allowed + _BACKSTOP, exit=True)
            silent = time.monotonic() - self._beaten
            if silent > self._allowed:
                faulthandler.dump_traceback_later(_BACKSTOP, exit=True)  # the report itself may hang
                self._report(silent, _stacks())
                time.sleep(LINGER)
                self._end(1)
                return


def _stacks() -> str:
    """Return the stacks of all threads of this process."""
    with tempfile.TemporaryFile() as stream:  # faulthandler writes to a real file only
        faulthandler.dump_traceback(stream, all_threads=True)
        stream.seek(0)
        return stream.read().decode(errors="replace")
