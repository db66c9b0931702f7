"""The newest figures as Ray metrics, for Ray's dashboard and Prometheus."""

from typing import TYPE_CHECKING

from mana_dist.train.tracking.events import Checkpointed, Event, Progress, Started, Validated

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

_DESCRIPTIONS = {
    "mana_train_step": "Global optimizer steps done.",
    "mana_train_workers": "Training workers.",
    "mana_train_stage": "Stage of the schedule.",
    "mana_train_loss": "Mean loss since the last report.",
    "mana_train_learning_rate": "Adam's learning rate.",
    "mana_train_gradient_norm": "L2 norm of the newest step's gradient, before clipping.",
    "mana_train_samples_per_second": "Samples a second over all workers.",
    "mana_train_tflops": "Model TFLOP/s over all workers.",
    "mana_train_peak_share": "Share of the devices' peak.",
    "mana_train_data_wait": "Share of the time that rank 0 waits for data.",
    "mana_train_memory_bytes": "Rank 0's peak memory.",
    "mana_train_checkpoint_seconds": "Time until the newest checkpoint was whole.",
    "mana_train_checkpoint_wait_seconds": "Time that training stood still for it.",
    "mana_validation_psnr": "PSNR of the newest validation, dB.",
    "mana_validation_ssim": "SSIM of the newest validation.",
    "mana_validation_neighbour_gain": "Neighbour gain of the newest validation, dB.",
}


class Gauges:
    """Sets Ray's gauges from the driver, which is connected to the cluster by the time of the first event.

    Args:
        run_name: value of their tag ``run``.
    """

    def __init__(self, run_name: str) -> None:
        self._run_name = run_name
        self._gauges: dict[str, Gauge] = {}

    def set(self, event: Event) -> None:
        """Set the gauges that an event has figures for."""
        from ray.util.metrics import Gauge

        for name, value in figures(event).items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(name, description=_DESCRIPTIONS[name], tag_keys=("run",))
                self._gauges[name].set_default_tags({"run": self._run_name})
            self._gauges[name].set(value)


def figures(event: Event) -> dict[str, float]:
    """Return the figures that an event holds, by metric."""
    match event:
        case Started():
            return {"mana_train_step": float(event.step), "mana_train_workers": float(event.workers)}
        case Progress():
            found = {
                "mana_train_step": float(event.step),
                "mana_train_stage": float(event.stage),
                "mana_train_loss": sum(event.losses) / len(event.losses),
                "mana_train_learning_rate": event.lr,
                "mana_train_samples_per_second": event.samples_per_second,
                "mana_train_tflops": event.tflops,
                "mana_train_data_wait": event.data_wait,
                "mana_train_memory_bytes": float(event.memory),
            }
            if event.gradient_norms:
                found["mana_train_gradient_norm"] = event.gradient_norms[-1]
            if event.peak_share is not None:
                found["mana_train_peak_share"] = event.peak_share
            return found
        case Validated():
            found = {"mana_validation_psnr": event.psnr, "mana_validation_ssim": event.ssim}
            if event.neighbour_gain is not None:
                found["mana_validation_neighbour_gain"] = event.neighbour_gain
            return found
        case Checkpointed():
            return {
                "mana_train_checkpoint_seconds": event.seconds,
                "mana_train_checkpoint_wait_seconds": event.waited,
            }
        case _:
            return {}
