"""The metrics of a training's MLflow run: their names, and what each event says of them."""

from collections.abc import Mapping, Sequence

from mana_dist.train.schedule import Stage
from mana_dist.train.tracking.events import Checkpointed, Event, Progress, Started, Usage, Validated

LOSS, NORM = "train/loss", "train/gradient_norm"
SCORE = "val/psnr"
PICTURE = "validation"
"""Name of the series of pictures; each is sent before its :data:`SCORE`."""
_WORKERS, _SAVED, _WAITED = "train/workers", "train/checkpoint_seconds", "train/checkpoint_wait_seconds"
OF_ATTEMPTS = (_WORKERS, _SAVED, _WAITED)
"""Every attempt logs its own at a step; other metrics belong to the step."""

# Names that an evaluation gives the same scores, so that a registered model's page compares the two.
_OF_MODELS = {SCORE: "psnr_rgb", "val/ssim": "ssim_rgb", "val/neighbour_gain": "neighbour_gain"}
SCORES = tuple(_OF_MODELS)
"""Metrics of a validation that describe the model."""


def values(event: Event) -> dict[str, float]:
    """Return what an event says about its step, by metric; steps' losses and norms are in :func:`series`."""
    match event:
        case Started():
            return {_WORKERS: float(event.workers)}
        case Checkpointed():
            return {_SAVED: event.seconds, _WAITED: event.waited}
        case Progress():
            return _of_progress(event)
        case Validated():
            return _of_validation(event)
        case _:
            return {}


def series(event: Started | Progress, stages: Sequence[Stage]) -> dict[str, dict[int, float]]:
    """Return the values of single steps that an event holds, by metric and step.

    A stage's losses are a curve of their own too, since another stage's may be of another kind and size.

    Args:
        event: holds the losses of the steps up to its own.
        stages: of the run.
    """
    losses = dict(enumerate(event.losses, event.step - len(event.losses) + 1))
    found = {LOSS: losses}
    for stage in stages:
        own = {step: loss for step, loss in losses.items() if stage.start < step <= stage.stop}
        if own:
            found[f"{LOSS}_stage{stage.number}"] = own
    if isinstance(event, Progress):
        found[NORM] = dict(enumerate(event.gradient_norms, event.step - len(event.gradient_norms) + 1))
    return found


def of_model(scores: Mapping[str, float]) -> dict[str, float]:
    """Return a validation's :data:`SCORES` by the names that an evaluation gives them."""
    return {_OF_MODELS[key]: value for key, value in scores.items()}


def _of_progress(event: Progress) -> dict[str, float]:
    found = {
        "train/stage": float(event.stage),
        "train/lr": event.lr,
        "train/samples_per_second": event.samples_per_second,
        "train/tflops": event.tflops,
        "train/data_wait": event.data_wait,
        "train/memory_gib": event.memory / 2**30,
    }
    if event.peak_share is not None:
        found["train/peak_share"] = event.peak_share
    return found | (_of_machine(event.usage) if event.usage else {})


def _of_machine(usage: Usage) -> dict[str, float]:
    """Return system metrics under MLflow's own names, which it shows on a page of theirs."""
    found = {
        "system/cpu_utilization_percentage": usage.cpu,
        "system/system_memory_usage_percentage": usage.memory,
        "system/gpu_0_utilization_percentage": usage.gpu,
        "system/gpu_0_memory_usage_percentage": usage.gpu_memory,
    }
    return {name: 100 * share for name, share in found.items() if share is not None}


def _of_validation(event: Validated) -> dict[str, float]:
    found = {
        SCORE: event.psnr,
        "val/ssim": event.ssim,
        "val/psnr_bicubic": event.psnr_bicubic,
        "val/ssim_bicubic": event.ssim_bicubic,
        "val/psnr_gain": event.psnr - event.psnr_bicubic,
        "val/seconds": event.seconds,
    }
    if event.neighbour_gain is not None:
        found["val/neighbour_gain"] = event.neighbour_gain
    return found
