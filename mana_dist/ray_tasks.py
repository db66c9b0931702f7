"""Tasks on Ray Data, one for each item, which may take long and may lose their processes."""

import functools
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mana_dist import ray_runtime
from mana_dist.child_task import Task, run_in_child
from mana_dist.console import log
from mana_dist.model.precision import PrecisionChoice, WantedPrecision, choose_precision, processor_here
from mana_dist.progress import count, duration

_Reports = dict[int, tuple[int | None, float]]  # frames done, and age in seconds of the last report, by task

_BLOCKS = 10_000
_RETRIES = 2  # of an item whose process died
_SILENCE = 60.0  # seconds without a result before the first line about it; doubles with each line
_MAX_SILENCE = 900.0
_REPORT_SECONDS = 5.0  # between two reports of a task
_NAMED = 4  # tasks in a line


def precision_on_cluster(wanted: WantedPrecision, device: str) -> PrecisionChoice:
    """Return the precision for work that all nodes of the cluster share: the least that all have.

    Args:
        wanted: ``auto`` asks the nodes.
        device: ``cpu`` or ``cuda``, for all of them.
    """
    if wanted != "auto":
        return choose_precision(wanted, [])
    ray_runtime.start_ray()
    found = ray_runtime.ask_nodes(functools.partial(processor_here, device), gpus=device == "cuda")
    if not found and device == "cuda":
        return PrecisionChoice("bf16", "the GPUs are busy or still to come, and are taken to have it")
    return choose_precision("auto", found)


def map_on_ray(
    items: Sequence[str],
    task: Task,
    name: Callable[[str], str],
    *,
    cpus: int = 1,
    gpus: int = 0,
    at_once: int | None = None,
) -> Iterator[str]:
    """Yield the results of ``task`` for all items, in any order; an item whose process dies every time has none.

    A single item, where no cluster is at hand, gets a process of its own, which starts in a second where Ray takes ten.

    Uses tasks, not a pool of actors: an actor that calls ``sys.exit`` is not restarted, and Ray Data waits for it
    forever (ray#62746). A task can cache what it loads in its process, which later tasks use too.

    Args:
        items: one for each task.
        task: does the work.
        name: returns an item's name for people.
        cpus: CPUs that a task needs.
        gpus: GPUs that it needs.
        at_once: number of tasks that run at a time; None for as many as the cluster has room for.
    """
    if not items:
        return
    if len(items) == 1 and not gpus and not _has_ray():
        yield from _run_beside(items[0], task, name, cpus)
        return
    ray_runtime.start_ray()
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)  # Ray's lines stay in the log files of its session
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    # Ray Data counts half an hour without a result as a hang; a segment, or a new node, may take longer.
    context.execution_no_progress_timeout_s = -1
    progress = ray.remote(num_cpus=0)(_TaskProgress).remote()
    rows = [{"number": number, "item": item} for number, item in enumerate(items)]
    work = ray.data.from_items(rows, override_num_blocks=min(len(items), _BLOCKS))
    with warnings.catch_warnings():
        # By default Ray Data retries a task whose process dies forever; 2.60 has no other setting than this deprecated
        # one.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        results = work.map(
            functools.partial(_run, task=task, progress=progress),
            compute=ray.data.TaskPoolStrategy(at_once),
            num_cpus=0 if gpus else cpus,
            num_gpus=gpus,
            max_calls=0,  # by default a process with a GPU ends after each task
            max_retries=_RETRIES,
        )
    left = {number: name(item) for number, item in enumerate(items)}

    def reports() -> _Reports:
        try:
            found: _Reports = ray.get(progress.reports.remote(), timeout=_REPORT_SECONDS)
        except ray.exceptions.RayError:  # its node may be gone
            return {}
        return found

    with _Reminder(left, reports) as reminder:
        for row in results.iter_rows():
            del left[row["number"]]
            reminder.restart()
            yield row["item"]


def _has_ray() -> bool:
    """Return whether a cluster is named, or this process has one already."""
    ray = sys.modules.get("ray")
    return bool(ray_runtime.cluster_address()) or (ray is not None and ray.is_initialized())


def _run_beside(item: str, task: Task, name: Callable[[str], str], cpus: int) -> Iterator[str]:
    """Yield the result of a task in a process of its own, which is tried again if it dies as often as Ray would."""
    progress, frames = _TaskProgress(), 0

    def step() -> None:
        nonlocal frames
        frames += 1
        progress.report(0, frames)

    with _Reminder({0: name(item)}, progress.reports):
        for _ in range(1 + _RETRIES):
            frames = 0
            progress.report(0, frames)
            done = run_in_child(task, item, cpus, step)
            if done is not None:
                break
    if done is not None:
        yield done


class _TaskProgress:
    """An actor, or its like in this process, to which tasks report their progress."""

    def __init__(self) -> None:
        self._reports: _Reports = {}

    def report(self, number: int, frames: int | None) -> None:
        """Record the frames that task ``number`` has done; None if it has ended and its result is on its way."""
        self._reports[number] = frames, time.monotonic()

    def reports(self) -> _Reports:
        """Return the last report of each task that began, and its age in seconds."""
        now = time.monotonic()
        return {number: (frames, now - when) for number, (frames, when) in self._reports.items()}


def _run(row: dict[str, Any], task: Task, progress: Any) -> dict[str, Any]:
    frames, reported = 0, time.monotonic()
    progress.report.remote(row["number"], frames)

    def step() -> None:
        nonlocal frames, reported
        frames += 1
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            progress.report.remote(row["number"], frames)

    done = task(row["item"], step)
    progress.report.remote(row["number"], None)
    return {"number": row["number"], "item": done}


class _Reminder:
    """A thread that prints which tasks are at work if no result has come for long."""

    def __init__(self, left: dict[int, str], reports: Callable[[], _Reports]) -> None:
        self._left, self._reports = left, reports
        self._last = time.monotonic()
        self._silence = _SILENCE
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reminder", daemon=True)

    def __enter__(self) -> "_Reminder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def restart(self) -> None:
        """Restart the clock, because there is a result."""
        self._last, self._silence = time.monotonic(), _SILENCE

    def _watch(self) -> None:
        while not self._end.wait(max(self._last + self._silence - time.monotonic(), 0.1)):
            silent = time.monotonic() - self._last
            if silent < self._silence:
                continue
            self._silence += min(self._silence, _MAX_SILENCE)
            log.info(waiting_line(silent, dict(self._left), self._reports()))


def waiting_line(silent: float, left: dict[int, str], reports: _Reports) -> str:
    """Return the line that says which tasks are at work.

    Args:
        silent: seconds since the last result.
        left: names of the tasks without a result.
        reports: number of frames done (None for all) and age in seconds of the last report, for tasks that have begun.
    """
    begun = {number: reports[number] for number in left if number in reports}
    parts = [
        f"{left[number]} ({_last_sign(frames, ago)})" for number, (frames, ago) in begun.items() if frames is not None
    ]
    parts = [*parts[:_NAMED], *([f"{len(parts) - _NAMED} more"] if len(parts) > _NAMED else [])]
    none = "the results of all that began are on their way" if begun else "none has begun"
    at_work = f"at work on {', '.join(parts)}" if parts else none
    waiting = len(left) - len(begun)
    room = f"; {waiting} wait for room on the cluster" if waiting else ""
    return f"nothing finished for {duration(silent)}: {at_work}{room}"


def _last_sign(frames: int, ago: float) -> str:
    done = f"{count(frames, 'frame')} done, " if frames else ""
    return f"{done}last sign {duration(ago)} ago"
