"""The scoring of many clips at once: each worker is a Ray actor, which takes one clip after another.

A clip is scored whole by one worker, with the same number of threads in any worker; results come back in the clips'
order. So the numbers do not depend on the number of workers.
"""

import contextlib
import heapq
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import cv2
import torch

from mana_dist import ray_runtime
from mana_dist.allocator import keep_freed_memory
from mana_dist.console import log
from mana_dist.errors import UserError, redacted
from mana_dist.evaluate.scored_clips import Clip
from mana_dist.evaluate.scoring import ScoredClip, Settings, score_clip
from mana_dist.metrics import Network
from mana_dist.progress import duration

RETRIES = 2
"""Number of further tries for a clip whose worker process died."""

_LOOK = 1.0  # seconds between counts of the workers' frames
_SILENCE = 60.0  # seconds without a frame after which the clips that are waited for are logged

EXAMPLES = 24
"""Number of clips, those in which methods differ most, whose pictures are kept."""

OnScored = Callable[[int, ScoredClip], None]
"""Function that takes a clip's position and its results as soon as they are there."""


class Plan(NamedTuple):
    """Numbers of workers and threads.

    Attributes:
        workers: processes; 1: this one, without Ray.
        threads: of each worker; None: torch's own default.
    """

    workers: int
    threads: int | None


@dataclass(frozen=True)
class _Mistake:
    """A worker's :class:`UserError` as a value, since Ray would wrap the exception."""

    text: str


def plan(clips: int, workers: int | None, places: int, threads: int) -> Plan:
    """Return how many workers share ``clips`` on this machine, with how many threads.

    Args:
        clips: their number.
        workers: as the user wants; None: as many as there is work and room for.
        places: number of GPUs where the methods run on them, else of CPUs.
        threads: torch's own default.

    Returns:
        The number of threads depends on the number of clips alone: sums may depend on it, and results must not depend
        on the number of workers.
    """
    if clips == 1:
        return Plan(1, None)
    share = max(1, threads // clips)
    return Plan(min(clips, workers or max(1, places // share)), share)


def score_clips(
    clips: Sequence[Clip],
    settings: Settings,
    workers: int | None,
    on_scored: OnScored,
    progress: Callable[[int], Callable[[], None]],
    on_frames: Callable[[int], None] = lambda _: None,
) -> list[ScoredClip]:
    """Score every clip once.

    Args:
        clips: at least one.
        settings: of the scoring; their number of threads is set here.
        workers: processes; None: as many as there is work and room for, one where Ray is not installed. One clip, and
            one worker, need no Ray.
        on_scored: takes each clip's results as they come.
        progress: returns what is to be called after each frame of the clip of that position; only for clips that this
            process scores.
        on_frames: takes each second the number of frames of all clips that the workers have scored.

    Returns:
        Results in the clips' order.

    Raises:
        UserError: a mistake in some clip, or its worker died again and again.
    """
    if workers is None and find_spec("ray") is None:
        workers = 1
    places = torch.cuda.device_count() if settings.device == "cuda" else os.cpu_count() or 1
    shared = plan(len(clips), workers, places, torch.get_num_threads())
    settings = replace(settings, threads=shared.threads)
    elsewhere = bool(ray_runtime.cluster_address()) and len(clips) > 1 and workers != 1
    if shared.workers > 1 or elsewhere:
        with _ray(shared) as cluster:
            return _on_ray(clips, settings, workers, cluster, on_scored, on_frames)
    settings = _on_device(settings)
    gathered = _Gathered()
    with _threads(settings.threads):
        for position, clip in enumerate(clips):
            scored = score_clip(clip, settings, progress(position))
            gathered.add(position, scored)
            on_scored(position, scored)
    return gathered.in_order()


class _Gathered:
    """Results as they come, and the examples with the largest differences: all of Vimeo90K's would take gigabytes."""

    def __init__(self) -> None:
        self._results: dict[int, ScoredClip] = {}
        self._shown: list[tuple[float, int]] = []  # a heap: (difference, minus the position)

    def add(self, position: int, scored: ScoredClip) -> None:
        self._results[position] = scored
        if not scored.examples:
            return
        heapq.heappush(self._shown, (scored.examples[0].region.difference, -position))
        if len(self._shown) > EXAMPLES:
            _, dropped = heapq.heappop(self._shown)
            self._results[-dropped] = self._results[-dropped]._replace(examples=())

    def in_order(self) -> list[ScoredClip]:
        return [self._results[position] for position in sorted(self._results)]


class _Worker:
    """An actor that fetches the methods once and scores clips."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._frames = 0
        keep_freed_memory()

    def frames(self) -> int:
        """Return the number of the clip's frames that are scored; answered while the clip is."""
        return self._frames

    def _step(self) -> None:
        self._frames += 1

    def score(self, shared: list[Any], clip: Clip) -> ScoredClip | _Mistake:
        """Score a clip; ``shared`` holds the reference to the settings, which Ray would else fetch for every clip."""
        if self._settings is None:
            import ray

            settings: Settings = ray.get(shared[0])
            self._settings = _on_device(settings)
        _set_threads(self._settings.threads)
        self._frames = 0
        try:
            return score_clip(clip, self._settings, self._step)
        except UserError as error:
            return _Mistake(str(error))


class _Cluster(NamedTuple):
    """Room in a cluster: GPUs, and workers with the wanted number of threads."""

    gpus: int
    workers: int


@contextlib.contextmanager
def _ray(shared: Plan) -> Iterator[_Cluster]:
    """Start or join Ray, and leave it as it was found."""
    # Ray reads its environment, which start_ray sets, when it is imported.
    running = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    threads = shared.threads or 1
    ray_runtime.start_ray(shared.workers * threads)
    import ray

    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(int(resources.get("CPU", 0) // threads) for resources in nodes)
        yield _Cluster(sum(int(resources.get("GPU", 0)) for resources in nodes), room)
    finally:
        if not running:
            ray.shutdown()


def _on_ray(
    clips: Sequence[Clip],
    settings: Settings,
    workers: int | None,
    cluster: _Cluster,
    on_scored: OnScored,
    on_frames: Callable[[int], None],
) -> list[ScoredClip]:
    import ray

    gpu = settings.device == "cuda"
    room = min(cluster.workers, cluster.gpus) if gpu else cluster.workers
    if room == 0:
        raise UserError(
            f"the Ray cluster has no node with {settings.threads} CPUs{' and a GPU' if gpu else ''}; "
            "add one, or use --workers 1"
        )
    count = min(len(clips), room, workers or room)
    # Dead workers are replaced here: Ray does not restart those that ended by themselves. Of the two calls at once, one
    # scores a clip and one asks how far it is.
    actor = ray.remote(_Worker).options(num_cpus=settings.threads or 1, num_gpus=1 if gpu else 0, max_concurrency=2)
    shared = [ray.put(settings)]
    idle = [actor.remote() for _ in range(count)]
    busy: dict[Any, tuple[Any, int]] = {}
    gathered = _Gathered()
    waiting = list(range(len(clips)))
    deaths = Counter[int]()
    frames: dict[int, int] = {}  # scored, by the clip's position
    came = said = time.monotonic()
    try:
        while waiting or busy:
            while waiting and idle:
                worker, position = idle.pop(), waiting.pop(0)
                busy[worker.score.remote(shared, clips[position])] = (worker, position)
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=_LOOK)
            if not ready:
                counted = frames | _frames(busy.values())
                if counted != frames:
                    frames, came = counted, time.monotonic()
                    on_frames(sum(frames.values()))
                if time.monotonic() - max(came, said) < _SILENCE:
                    continue
                said = time.monotonic()
                names = ", ".join(redacted(clips[position].uri) for _, position in busy.values())
                log.info(f"no frame scored for {duration(time.monotonic() - came)}; waiting for {names}")
                continue
            came = time.monotonic()
            worker, position = busy.pop(ready[0])
            scored = _result(ready[0])
            if scored is None:
                deaths[position] += 1
                if deaths[position] > RETRIES:
                    raise UserError(
                        f"{clips[position].uri}: the worker process that scored it died {RETRIES + 1} times, for want "
                        "of memory most likely; use fewer --workers"
                    )
                ray.kill(worker)
                idle.append(actor.remote())
                waiting.insert(0, position)
                continue
            gathered.add(position, scored)
            frames[position] = scored.frames
            idle.append(worker)
            on_scored(position, scored)
    finally:
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            ray.kill(worker)
    return gathered.in_order()


def _frames(busy: Iterable[tuple[Any, int]]) -> dict[int, int]:
    """Return how many frames of its clip each worker has scored, by the clip's position; of those that answer."""
    import ray

    asked = {worker.frames.remote(): position for worker, position in busy}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK)
    found = {}
    for reference in ready:
        with contextlib.suppress(ray.exceptions.RayError):  # how its clip ended is for _result to say
            found[asked[reference]] = ray.get(reference)
    return found


def _result(reference: Any) -> ScoredClip | None:
    """Return a task's result; None if the worker's process died or left."""
    import ray

    try:
        result: ScoredClip | _Mistake = ray.get(reference)
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
        return None
    if isinstance(result, _Mistake):
        raise UserError(result.text)
    return result


def _on_device(settings: Settings) -> Settings:
    measures = {
        name: measure.on(settings.device) if isinstance(measure, Network) else measure
        for name, measure in settings.measures.items()
    }
    return replace(settings, measures=measures)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Give torch and OpenCV ``count`` threads in this context."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    _set_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _set_threads(count: int | None) -> None:
    if count is not None:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)
