"""Work in threads of its own beside the caller's: reading ahead and writing behind, in order, in bounded memory.

FFmpeg, torch and NumPy let other threads run while they compute: decoding and encoding go on beside the network.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

_END = object()


def read_ahead(items: Iterable[Item], most: int) -> Generator[Item]:
    """Yield ``items``, which are read in another thread, up to ``most`` before they are asked for.

    An exception of theirs is raised in its place, after the items before it. When the generator ends or is closed, the
    thread has ended, and what ``items`` reads from may be closed.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(most))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, iterator, _END))
                yield item  # type: ignore[misc]  # not _END, so an item
        finally:
            pool.shutdown(cancel_futures=True)


class WriteBehind:
    """A function that is called in another thread, in order; a context: once left, no call is running or waiting.

    After a call that raised, those behind it are not made: what they would build on is not there. The exception is
    raised by the next use of this object.
    """

    def __init__(self, function: Callable[..., None], most: int) -> None:
        """Start without a call.

        Args:
            function: to be called; the caller leaves alone what it works on until :meth:`wait`.
            most: calls that may wait.
        """
        self._function, self._most = function, most
        self._waiting: deque[Future[None]] = deque()
        self._has_failed = False
        self._pool = ThreadPoolExecutor(1, "write-behind")

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """Have the function called, once the calls before are made; wait where too many wait already."""
        self._waiting.append(self._pool.submit(self._call, *arguments, **named))
        while len(self._waiting) > self._most:
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Wait until all calls are made."""
        while self._waiting:
            self._waiting.popleft().result()

    def _call(self, *arguments: Any, **named: Any) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._function(*arguments, **named)
            self._has_failed = False
