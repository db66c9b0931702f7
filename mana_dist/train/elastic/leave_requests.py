"""Requests of the driver that the workers save everything and leave: a small actor on the driver's node."""

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_POLL = 0.5  # seconds


class _Requests:
    """The actor: who wants the workers to leave, and whether they have."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._saved: int | None = None

    def want(self, who: str) -> None:
        self._wanted.add(who)

    def arrived(self) -> None:
        self._saved = None

    def withdraw(self, who: str) -> None:
        self._wanted.discard(who)

    def is_wanted(self) -> bool:
        return bool(self._wanted)

    def left(self, step: int) -> None:
        self._saved = step

    def saved(self) -> int | None:
        return self._saved


class LeaveRequests:
    """The driver's requests to save everything and leave; can be sent to other processes.

    Args:
        requests: the actor; made with :meth:`open`.
    """

    def __init__(self, requests: "ActorHandle") -> None:
        self._requests = requests

    @classmethod
    def open(cls, options: dict[str, Any]) -> Self:
        """Start the actor with Ray's ``options``."""
        import ray

        return cls(ray.remote(_Requests).options(**options).remote())

    def leave(self, who: str) -> None:
        """Ask the workers, and all that come after them, to save everything and leave; does not wait.

        Args:
            who: name of who asks; the request holds until :meth:`withdraw` with the same name.
        """
        self._requests.want.remote(who)

    def withdraw(self, who: str) -> None:
        """Take a request back: the next workers stay, unless somebody else asks them to leave."""
        self._requests.withdraw.remote(who)

    def wait_until_left(self, seconds: float) -> None:
        """Wait until the latest workers have saved everything, at most ``seconds``.

        Workers that left by themselves, at the schedule's end, count.
        """
        import ray

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and ray.get(self._requests.saved.remote()) is None:
            time.sleep(0.1)

    def report_left(self, step: int) -> None:
        """Report, as a worker, that everything up to ``step`` is saved and it leaves."""
        self._requests.left.remote(step)

    def listen(self) -> "Listener":
        """Return a listener for the requests, as a worker."""
        return Listener(self._requests)


class Listener:
    """Looks for requests in a thread of its own. Use as a context manager.

    Attributes:
        leave: whether the worker shall save everything and leave.
    """

    def __init__(self, requests: "ActorHandle") -> None:
        self._requests = requests
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="leave-requests", daemon=True)
        self.leave = False

    def __enter__(self) -> Self:
        self._requests.arrived.remote()  # what workers before these have saved is no answer any more
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()

    def _listen(self) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # where the driver ends, so do the workers
            while not self._finished.wait(_POLL):
                self.leave = ray.get(self._requests.is_wanted.remote())
