"""The losses, norms and pace between two reports, measured by every worker and reported by rank 0."""

import contextlib
import math
import resource
import time
from collections.abc import Callable

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from mana_dist.config import Config
from mana_dist.data.feed import Feed
from mana_dist.train.planning.costs import Peak, sample_cost
from mana_dist.train.schedule import Stage, learning_rate, stages
from mana_dist.train.tracking.events import Event, Progress, Usage


class Meter:
    """Measures one stage; no synchronisation with the device until a report is made.

    Args:
        config: the run's configuration.
        stage: the stage that is measured.
        feed: counts the seconds that this worker waited for data.
        send: called with the reports, by rank 0 alone.
        device: the device that this worker computes on.
        peak: the device's peak.

    Attributes:
        gradient_norms: gradient norms of the steps of the last report.
    """

    def __init__(
        self, config: Config, stage: Stage, feed: Feed, send: Callable[[Event], None], device: torch.device, peak: Peak
    ) -> None:
        self._stage = stage
        self._feed = feed
        self._send = send
        self._device = device
        self._peak = peak
        self._total = stages(config)[-1].stop
        self._batch_size = config.data.batch_size
        self._is_speaker = dist.get_rank() == 0
        psutil.cpu_percent()  # the next call says what was used since
        precision = config.run.arithmetic
        self._flops = sample_cost(config.model, stage, config.data.crop, precision).flops if self._is_speaker else 0
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self.gradient_norms: tuple[float, ...] = ()
        self._since_checkpoint: list[float] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new interval: what came before (a checkpoint, a report) is not training time."""
        self._since = time.perf_counter()
        self._waited = self._feed.waited
        self._steps_before = len(self._losses)

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take this worker's part of one step's loss, and the global batch's gradient norm."""
        self._losses.append(loss)
        self._norms.append(gradient_norm)

    def report(self, step: int) -> tuple[float, ...]:
        """Sum the parts over all workers and report the steps up to ``step``, the newest; collective.

        Steps from the first on whose loss or gradient norm is not finite are not reported: the run ends at them, and
        makes them again if it is resumed.

        Returns:
            The global batch's mean loss of each step since the last report, the same on all workers.
        """
        summed = torch.stack(self._losses)
        dist.all_reduce(summed)
        losses = summed.tolist()  # waits for the device, so before the clock is read
        norms = torch.stack(self._norms).tolist()
        timed = len(losses) - self._steps_before
        seconds = time.perf_counter() - self._since
        good = _finite(losses, norms)
        if good and self._is_speaker:
            self._send(self._progress(step - len(losses) + good, losses[:good], norms[:good], seconds, timed))
        self._losses, self._norms = [], []
        self.gradient_norms = tuple(norms)
        self._since_checkpoint += losses[:good]
        self.restart()
        return tuple(losses)

    def _progress(self, step: int, losses: list[float], norms: list[float], seconds: float, timed: int) -> Progress:
        """Return the report of ``losses``, whose last ``timed`` steps took ``seconds``."""
        pace = seconds / max(timed, 1)
        rate = self._batch_size / pace
        return Progress(
            stage=self._stage.number,
            step=step,
            total=self._total,
            losses=tuple(losses),
            lr=learning_rate(self._stage, step - 1),
            samples_per_second=rate,
            data_wait=(self._feed.waited - self._waited) / seconds,
            eta_seconds=(self._total - step) * pace,
            seconds=seconds,
            samples=timed * self._batch_size,
            gradient_norms=tuple(norms),
            tflops=rate * self._flops / 1e12,
            peak_share=rate * self._flops / (self._peak.flops * dist.get_world_size()),
            memory=_peak_memory(self._device),
            usage=_usage(self._device),
        )

    def take_losses(self) -> tuple[float, ...]:
        """Return the losses of all steps since the last call; all of them must have been reported."""
        losses, self._since_checkpoint = tuple(self._since_checkpoint), []
        return losses


def _finite(losses: list[float], norms: list[float]) -> int:
    """Return the number of steps before the first whose loss or norm is not finite."""
    for number, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return number
    return len(losses)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _usage(device: torch.device) -> Usage:
    gpu = gpu_memory = None
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        gpu_memory = 1 - free / total
        with contextlib.suppress(Exception):  # a figure for a page: its library may be missing, or not know this GPU
            gpu = torch.cuda.utilization(device) / 100
    return Usage(psutil.cpu_percent() / 100, psutil.virtual_memory().percent / 100, gpu, gpu_memory)
