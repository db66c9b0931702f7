"""Tasks on Ray Data, one to an item: however long one takes, whatever becomes of the process that works on it."""

import functools
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mana_dist.console import log
from mana_dist.progress import count, duration

Step = Callable[[], None]
"""Is called by a task for every frame that it is done with."""
Task = Callable[[str, Step], str]

_BLOCKS = 10_000
_RETRIES = 2  # of an item whose process died
_SILENCE = 60.0  # seconds without a result after which it is said what is waited for; then twice as long, and so on
_LONGEST_SILENCE = 900.0
_SIGN_SECONDS = 5.0  # between two signs of life of a task
_NAMED = 4  # tasks


def map_on_ray(
    items: Sequence[str],
    task: Task,
    name: Callable[[str], str],
    *,
    cpus: int = 1,
    gpus: int = 0,
    at_once: int | None = None,
) -> Iterator[str]:
    """Give what ``task`` makes of every item, in any order; an item whose process dies again and again gives nothing.

    Tasks and no pool of actors: an actor that leaves by itself (``sys.exit``) is not started anew, and Ray Data waits
    for it for ever (ray#62746). What a task must load once, it may keep in its process, which the next one gets.

    Args:
        items: what to do.
        task: takes an item and what to call for each frame.
        name: of an item, for people.
        cpus: that a task needs.
        gpus: that it needs.
        at_once: tasks that run at a time; None: as many as there is room for.
    """
    if not items:
        return
    from mana_dist import ray_runtime  # Ray takes seconds to import: only once there is work for it

    ray_runtime.start_ray()
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)  # the console is for our lines; the session's log files keep Ray's
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    # Ray Data takes half an hour without a result for a hang; a segment, or a node that is to come, may take longer.
    context.execution_no_progress_timeout_s = -1
    desk = ray.remote(num_cpus=0)(_Desk).remote()
    rows = [{"number": number, "item": item} for number, item in enumerate(items)]
    work = ray.data.from_items(rows, override_num_blocks=min(len(items), _BLOCKS))
    with warnings.catch_warnings():
        # Ray Data tries a task whose process dies again for ever; 2.60 has no other way to say how often than this,
        # which it deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        results = work.map(
            functools.partial(_run, task=task, desk=desk),
            compute=ray.data.TaskPoolStrategy(at_once),
            num_cpus=0 if gpus else cpus,
            num_gpus=gpus,
            max_calls=0,  # else a process that has a GPU ends with each task
            max_retries=_RETRIES,
        )
    left = {number: name(item) for number, item in enumerate(items)}
    with _Reminder(left, desk) as reminder:
        for row in results.iter_rows():
            del left[row["number"]]
            reminder.has_come()
            yield row["item"]


class _Desk:
    """An actor to which tasks say that they are at work, and how far."""

    def __init__(self) -> None:
        self._signs: dict[int, tuple[int | None, float]] = {}

    def sign(self, number: int, frames: int | None) -> None:
        """Task ``number`` has done so many frames; None: it is done, and its result on its way."""
        self._signs[number] = frames, time.monotonic()

    def signs(self) -> dict[int, tuple[int | None, float]]:
        """What each task that ever began said last, and how many seconds ago."""
        now = time.monotonic()
        return {number: (frames, now - when) for number, (frames, when) in self._signs.items()}


def _run(row: dict[str, Any], task: Task, desk: Any) -> dict[str, Any]:
    frames, said = 0, time.monotonic()
    desk.sign.remote(row["number"], frames)

    def step() -> None:
        nonlocal frames, said
        frames += 1
        if time.monotonic() - said > _SIGN_SECONDS:
            said = time.monotonic()
            desk.sign.remote(row["number"], frames)

    done = task(row["item"], step)
    desk.sign.remote(row["number"], None)
    return {"number": row["number"], "item": done}


class _Reminder:
    """A thread that says what is waited for when no result comes for long: a slow task is no hang."""

    def __init__(self, left: dict[int, str], desk: Any) -> None:
        self._left, self._desk = left, desk
        self._came = time.monotonic()
        self._silence = _SILENCE
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reminder", daemon=True)

    def __enter__(self) -> "_Reminder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def has_come(self) -> None:
        """Begin to count anew: there is a result."""
        self._came, self._silence = time.monotonic(), _SILENCE

    def _watch(self) -> None:
        import ray

        while not self._end.wait(max(self._came + self._silence - time.monotonic(), 0.1)):
            silent = time.monotonic() - self._came
            if silent < self._silence:
                continue
            self._silence += min(self._silence, _LONGEST_SILENCE)
            try:
                signs = ray.get(self._desk.signs.remote(), timeout=_SIGN_SECONDS)
            except ray.exceptions.RayError:  # its node may be gone
                signs = {}
            log.info(waiting_line(silent, dict(self._left), signs))


def waiting_line(silent: float, left: dict[int, str], signs: dict[int, tuple[int | None, float]]) -> str:
    """Say what is waited for.

    Args:
        silent: seconds since the last result.
        left: names of the tasks whose results have not come.
        signs: of those that have begun, how many frames they have done (None: all) and how many seconds ago they said
            so.
    """
    begun = {number: signs[number] for number in left if number in signs}
    parts = [f"{left[number]} ({_sign(frames, ago)})" for number, (frames, ago) in begun.items() if frames is not None]
    parts = [*parts[:_NAMED], *([f"{len(parts) - _NAMED} more"] if len(parts) > _NAMED else [])]
    none = "the results of all that began are on their way" if begun else "none has begun"
    at_work = f"at work on {', '.join(parts)}" if parts else none
    waiting = len(left) - len(begun)
    room = f"; {waiting} wait for room on the cluster" if waiting else ""
    return f"nothing finished for {duration(silent)}: {at_work}{room}"


def _sign(frames: int, ago: float) -> str:
    done = f"{count(frames, 'frame')} done, " if frames else ""
    return f"{done}last sign {duration(ago)} ago"
