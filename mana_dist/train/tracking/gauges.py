"""A training's newest figures as Ray's metrics, for Prometheus."""

import time

from mana_dist.config import Config
from mana_dist.ray_metrics import RayMetrics
from mana_dist.train.schedule import stages
from mana_dist.train.tracking.events import Checkpointed, Event, Failed, Progress, Stalled, Started, Stopped, Validated


class Gauges:
    """Sets Ray's metrics from the driver, which is connected to the cluster by the time of the first event.

    Args:
        config: the run, whose name their tag ``run`` is.
        alone: whether nobody else sees to it that the run goes on; a sweep ends and replaces its trials itself, so
            these do not say when they made a step.
    """

    def __init__(self, config: Config, *, alone: bool = True) -> None:
        self._metrics = RayMetrics(run=str(config.run.name))
        self._batch, self._checkpoint_every = config.data.batch_size, config.run.checkpoint_every
        self._last_step = stages(config)[-1].stop
        self._alone, self._started = alone, False

    def set(self, event: Event) -> None:
        """Set what an event has figures for."""
        for name, value in figures(event).items():
            self._metrics.set(name, value)
        now = time.time()
        if self._alone and isinstance(event, Started | Progress):
            self._metrics.set("mana_train_last_step_timestamp_seconds", now)
        # A run that was killed after its last step starts again, and makes no step.
        made_all = isinstance(event, Started | Progress) and event.step >= self._last_step
        if self._alone and (made_all or isinstance(event, Stopped)):
            self._metrics.set("mana_train_ended_timestamp_seconds", now)
        match event:
            case Started():
                self._metrics.set("mana_train_checkpoint_every_steps", self._checkpoint_every)
                self._metrics.add("mana_train_restarts_total", int(self._started or event.step > 0))
                self._started = True
            case Progress():
                self._metrics.add("mana_train_samples_total", len(event.losses) * self._batch)
            case Checkpointed():
                self._metrics.set("mana_train_checkpoint_timestamp_seconds", now)
            case Failed():
                self._metrics.add("mana_train_worker_failures_total")
            case Stalled():
                self._metrics.add("mana_train_stalls_total")
            case _:
                pass

    def close(self) -> None:
        """Show nothing more."""
        self._metrics.close()


def figures(event: Event) -> dict[str, float]:
    """Return the figures that an event holds, by metric."""
    match event:
        case Started():
            return {
                "mana_train_step": float(event.step),
                "mana_train_workers": float(event.workers),
                "mana_train_checkpoint_step": float(event.step),  # which it goes on from
            }
        case Progress():
            found = {
                "mana_train_step": float(event.step),
                "mana_train_planned_steps": float(event.total),
                "mana_train_stage": float(event.stage),
                "mana_train_loss": sum(event.losses) / len(event.losses),
                "mana_train_learning_rate": event.lr,
                "mana_train_samples_per_second": event.samples_per_second,
                "mana_train_flops": event.tflops * 1e12,
                "mana_train_data_wait_ratio": event.data_wait,
                "mana_train_memory_bytes": float(event.memory),
            }
            if event.gradient_norms:
                found["mana_train_gradient_norm"] = event.gradient_norms[-1]
            if event.peak_share is not None:
                found["mana_train_mfu_ratio"] = event.peak_share
            return found
        case Validated():
            found = {"mana_validation_psnr_decibels": event.psnr, "mana_validation_ssim": event.ssim}
            if event.neighbour_gain is not None:
                found["mana_validation_neighbour_gain_decibels"] = event.neighbour_gain
            return found
        case Checkpointed():
            return {
                "mana_train_checkpoint_step": float(event.step),
                "mana_train_checkpoint_seconds": event.seconds,
                "mana_train_checkpoint_wait_seconds": event.waited,
            }
        case _:
            return {}
