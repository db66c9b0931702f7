"""Figures of the work at hand as Ray's metrics, which every node of a cluster offers to Prometheus.

Ray adds ``ray_`` to the names, and labels of its own. They follow Prometheus' conventions: a unit at the end, and
``_total`` for what only grows.
"""

import contextlib
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge

COUNTERS = {
    "mana_train_samples_total": "Samples trained, with those that a restart repeats.",
    "mana_train_restarts_total": "Times that the workers went on from a checkpoint, or began anew.",
    "mana_train_worker_failures_total": "Workers that failed.",
    "mana_train_stalls_total": "Workers that were ended because they made no step.",
    "mana_ingest_clips_total": "Clips read, refused ones too; without long videos, which are cut into parts.",
    "mana_ingest_refused_total": "Those of them that were refused.",
    "mana_ingest_frames_total": "Frames read.",
    "mana_ingest_samples_total": "Samples written.",
    "mana_ingest_bytes_total": "Bytes of shards written.",
    "mana_upscale_segments_total": "Segments upscaled.",
    "mana_upscale_frames_total": "Frames of those, about.",
    "mana_upscale_failed_videos_total": "Videos that were refused or could not be finished.",
}
GAUGES = {
    "mana_train_step": "Global optimizer steps done.",
    "mana_train_planned_steps": "Global optimizer steps of the whole schedule.",
    "mana_train_last_step_timestamp_seconds": "When the newest step was reported, or the workers started.",
    "mana_train_ended_timestamp_seconds": "When the last step was done, or a signal ended the run in order.",
    "mana_train_workers": "Training workers.",
    "mana_train_stage": "Stage of the schedule.",
    "mana_train_loss": "Mean loss since the last report.",
    "mana_train_learning_rate": "Adam's learning rate.",
    "mana_train_gradient_norm": "L2 norm of the newest step's gradient, before clipping.",
    "mana_train_samples_per_second": "Samples a second over all workers, without pauses.",
    "mana_train_flops": "The model's floating-point operations a second over all workers.",
    "mana_train_mfu_ratio": "Those over the devices' peak.",
    "mana_train_data_wait_ratio": "Share of the time that rank 0 waits for data.",
    "mana_train_memory_bytes": "Rank 0's peak memory.",
    "mana_train_checkpoint_every_steps": "Steps from one checkpoint to the next.",
    "mana_train_checkpoint_step": "Step of the newest checkpoint; 0 before the first.",
    "mana_train_checkpoint_timestamp_seconds": "When this attempt's newest checkpoint was whole.",
    "mana_train_checkpoint_seconds": "Time until the newest checkpoint was whole.",
    "mana_train_checkpoint_wait_seconds": "Time that training stood still for it.",
    "mana_validation_psnr_decibels": "PSNR of the newest validation.",
    "mana_validation_ssim": "SSIM of the newest validation.",
    "mana_validation_neighbour_gain_decibels": "Neighbour gain of the newest validation.",
    "mana_ingest_done_ratio": "Share of the work that is done.",
    "mana_upscale_done_ratio": "Share of the frames that are done.",
}

_AGAIN = 5.0  # seconds


class RayMetrics:
    """Metrics of one piece of work; without Ray nothing happens. Use as a context manager, or close it.

    Ray (2.60) drops a gauge that was not set for 20 s, so a thread sets all of them again and again until the end. What
    is still shown after that is what Prometheus may rely on: a process that died shows nothing.

    Args:
        tags: labels of all of them.
    """

    def __init__(self, **tags: str) -> None:
        self._tags = tags
        self._values: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str, amount: float = 1) -> None:
        """Count ``amount`` more of what :data:`COUNTERS` says; 0 is none."""
        if name not in COUNTERS:
            raise KeyError(name)
        if amount > 0 and _is_connected():
            with contextlib.suppress(Exception):  # the work is worth more than its figures
                _counter(name, tuple(self._tags)).inc(amount, tags=self._tags)

    def set(self, name: str, value: float) -> None:
        """Show ``value`` as what :data:`GAUGES` says."""
        if name not in GAUGES:
            raise KeyError(name)
        with self._lock:
            self._values[name] = value
            self._show(name)
        if self._thread is None and _is_connected():
            self._thread = threading.Thread(target=self._show_again, name="metrics", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let the gauges vanish; counters stay as long as the node."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, name: str) -> None:
        if _is_connected():
            with contextlib.suppress(Exception):  # the same; or Ray is ending
                _gauge(name, tuple(self._tags)).set(self._values[name], tags=self._tags)

    def _show_again(self) -> None:
        while not self._closed.wait(_AGAIN):
            with self._lock:
                for name in self._values:
                    self._show(name)


def _is_connected() -> bool:
    """Return whether this process belongs to a cluster; Ray is not imported for it."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and hasattr(ray, "is_initialized") and ray.is_initialized()


# Ray warns of a metric that is made twice in a process.
@functools.cache
def _counter(name: str, tags: tuple[str, ...]) -> "Counter":
    from ray.util.metrics import Counter

    return Counter(name, description=COUNTERS[name], tag_keys=tags)


@functools.cache
def _gauge(name: str, tags: tuple[str, ...]) -> "Gauge":
    from ray.util.metrics import Gauge

    return Gauge(name, description=GAUGES[name], tag_keys=tags)
