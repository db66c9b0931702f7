"""Ctrl-C and SIGTERM at the driver: during training the first requests an orderly end; any other ends it at once."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Self

_CAUGHT = (signal.SIGINT, signal.SIGTERM)
_AT_ONCE = 0.5  # seconds: `timeout` and wrappers of shells signal a program itself and its group, at the same time


class Terminated(SystemExit):
    """SIGTERM was received; ends the process with the exit code that a shell gives a signal."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Interrupts:
    """Catches both signals while the context is open; does nothing outside of the main thread.

    A signal raises :meth:`error`, but for the first one while :meth:`awaited`. Signals that come at the same time are
    one.

    Attributes:
        requested: set once a signal has requested an end.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._awaits = False
        self._first = signal.SIGTERM
        self._first_at = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in _CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def catch(self) -> None:
        """Catch the signals again, where a library has installed handlers of its own."""
        if threading.current_thread() is threading.main_thread():
            for number in _CAUGHT:
                signal.signal(number, self._catch)

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Let the first signal only set :attr:`requested` while the context is open; open it after Ray has started."""
        self.catch()
        self._awaits = True
        try:
            yield
        finally:
            self._awaits = False

    @property
    def reason(self) -> str:
        """The first signal's name."""
        return "Ctrl-C" if self._first == signal.SIGINT else self._first.name

    def error(self) -> BaseException:
        """Return the exception to leave the program with."""
        return KeyboardInterrupt() if self._first == signal.SIGINT else Terminated()

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        again = self.requested.is_set()
        if not again:
            self._first, self._first_at = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._first_at < _AT_ONCE:
            return
        self.requested.set()
        if again or not self._awaits:
            raise self.error()
