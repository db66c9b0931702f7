"""The stages on Ray: reading the videos, upscaling segments by workers that hold the model, joining at once."""

import base64
import functools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from mana_dist.allocator import keep_freed_memory
from mana_dist.child_task import Step
from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.model.precision import PrecisionChoice, WantedPrecision
from mana_dist.ray_tasks import map_on_ray, precision_on_cluster
from mana_dist.upscale.bucket import segment_tasks
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.bucket.segment_tasks import Failure, Recipe, Upscaler, Video
from mana_dist.upscale.join import Summary
from mana_dist.upscale.segments import Segment

_LOOK_HERE = 256 * 2**20  # bytes of sources that are read through sooner than processes have started for it
_JOINS = 8  # at a time
_TRIES = 2  # more, of a join whose process died
_SILENCE = 60.0  # seconds
DIED = Failure("the process that worked on it died, again and again (out of memory?)")

Job = tuple[Video, Segment]


def inspect(
    outputs: Sequence[Output], folders: Sequence[str], recipe: Recipe
) -> Iterator[tuple[Output, Video | Failure]]:
    """Look at all sources; in any order."""
    if sum(_LOOK_HERE if output.bytes is None else output.bytes for output in outputs) < _LOOK_HERE:
        for output, folder in zip(outputs, folders, strict=True):
            yield output, segment_tasks.inspect(output, folder, recipe)
        return
    missing = {output.key: output for output in outputs}
    items = [_pack(pair) for pair in zip(outputs, folders, strict=True)]
    task = functools.partial(_inspect, recipe=recipe)
    for text in map_on_ray(items, task, lambda item: str(_unpack(item)[0].name)):
        output, found = _unpack(text)
        del missing[output.key]
        yield output, found
    for output in missing.values():
        yield output, DIED


def device(name: str) -> Literal["cpu", "cuda"]:
    """Connect to the cluster, and return the device that ``auto``, ``cpu`` or ``cuda`` means there.

    Raises:
        UserError: ``cuda``, and there is no GPU.
    """
    gpus = _resources().get("GPU", 0)
    if name == "cuda" and not gpus:
        raise UserError("--device cuda: the Ray cluster has no GPU; use --device cpu or auto")
    return "cuda" if gpus and name != "cpu" else "cpu"


def precision(wanted: WantedPrecision, device: str) -> PrecisionChoice:
    """Return the precision for all nodes of the cluster."""
    return precision_on_cluster(wanted, device)


def workers(recipe: Recipe, wanted: int | None, cpus: int) -> int:
    """Return the number of workers that the cluster has room for, at most ``wanted``.

    Raises:
        UserError: there is no room for one.
    """
    resources = _resources()
    on_gpus = recipe.settings.device == "cuda"
    room = int(resources.get("GPU", 0)) if on_gpus else int(resources.get("CPU", 0) // cpus)
    if room < 1:
        raise UserError(
            f"--cpus-per-worker {cpus}: the Ray cluster has {resources.get('CPU', 0):g} CPUs; ask for fewer"
        )
    return min(room, wanted or room)


def upscale(
    jobs: Sequence[Job], recipe: Recipe, count: int, cpus: int
) -> Iterator[tuple[Video, Segment, Failure | None]]:
    """Upscale segments on ``count`` workers of ``cpus`` cores; in any order, None where one is done."""
    if not jobs:
        return
    missing = {(video.output.key, segment.number): (video, segment) for video, segment in jobs}
    on_gpus = recipe.settings.device == "cuda"
    task = functools.partial(_upscale, recipe=recipe)
    room = {"gpus": 1} if on_gpus else {"cpus": cpus}
    for text in map_on_ray([_pack(job) for job in jobs], task, _segment_name, at_once=count, **room):
        key, number, failure = _unpack(text)
        video, segment = missing.pop((key, number))
        yield video, segment, failure
    for video, segment in missing.values():
        yield video, segment, DIED


class Joins:
    """The joins that run while segments are worked on."""

    def __init__(self, recipe: Recipe) -> None:
        import ray

        # They read and write and hardly compute: without a CPU of their own they need not wait for the workers'.
        options = {"num_cpus": 0, "max_retries": _TRIES, "scheduling_strategy": "SPREAD"}
        self._task = ray.remote(**options)(segment_tasks.finish)
        self._recipe = recipe
        self._waiting: list[Video] = []
        self._running: dict[Any, Video] = {}

    def start(self, video: Video) -> None:
        """Join the segments of ``video``, which are all finished."""
        self._waiting.append(video)

    def done(self, *, wait: bool) -> Iterator[tuple[Video, Summary | Failure]]:
        """Yield the joins that are done by now, or with ``wait`` all as they are done."""
        import ray

        while self._waiting or self._running:
            while self._waiting and len(self._running) < _JOINS:
                video = self._waiting.pop(0)
                self._running[self._task.remote(video, self._recipe)] = video
            ready, _ = ray.wait(list(self._running), timeout=_SILENCE if wait else 0)
            for reference in ready:
                try:
                    found = ray.get(reference)
                except ray.exceptions.RayError:
                    found = DIED
                yield self._running.pop(reference), found
            if not ready and not wait:
                return
            if not ready:
                log.info(f"joining {', '.join(video.output.name for video in self._running.values())}")


def _inspect(item: str, _: Step, recipe: Recipe) -> str:
    output, folder = _unpack(item)
    return _pack((output, segment_tasks.inspect(output, folder, recipe)))


def _upscale(item: str, step: Step, recipe: Recipe) -> str:
    video, segment = _unpack(item)
    return _pack((video.output.key, segment.number, _upscaler(recipe).upscale(video, segment, step)))


@functools.lru_cache(maxsize=1)
def _upscaler(recipe: Recipe) -> Upscaler:
    """Return the process's upscaler, whose model is loaded once for all of its tasks."""
    keep_freed_memory()
    return Upscaler(recipe)


def _segment_name(item: str) -> str:
    video, segment = _unpack(item)
    return str(video.label(segment))


def _resources() -> dict[str, float]:
    from mana_dist import ray_runtime

    ray_runtime.start_ray()
    import ray

    resources: dict[str, float] = ray.cluster_resources()
    return resources


def _pack(value: object) -> str:
    # For processes of this job alone; what is kept is JSON.
    return base64.b64encode(pickle.dumps(value)).decode()


def _unpack(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))  # noqa: S301
