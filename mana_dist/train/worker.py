"""What every training worker runs: the paper's schedule, step by step."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from mana_dist import config as configuration
from mana_dist.config import Config
from mana_dist.data.feed import Feed
from mana_dist.data.manifest import Manifest
from mana_dist.data.order import slots_of
from mana_dist.train import checkpoint
from mana_dist.train.checkpoint import TrainState
from mana_dist.train.engine import StageEngine, initial_weights
from mana_dist.train.events import Checkpointed, Event, Failed, Progress, Started
from mana_dist.train.schedule import Stage, stages
from mana_dist.train.validation import Validation


@dataclass(frozen=True)
class WorkerTask:
    """What the driver hands to every worker.

    Attributes:
        config: the run's configuration, nested plain values.
        data: the training data's manifest, as it was when the run was started.
        send: takes rank 0's events to the driver.
    """

    config: Mapping[str, Any]
    data: Manifest
    send: Callable[[Event], None]


def train_worker(task: WorkerTask) -> None:
    """Train from the newest checkpoint, or from the start, to the schedule's end."""
    Worker(configuration.from_mapping(task.config, "run"), task.data, task.send).train()


class ReportFailures(ray.train.UserCallback):  # type: ignore[misc]  # Ray comes without types
    """Tells the driver of failed workers, which Ray Train otherwise restarts without a word."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Called by Ray Train's controller."""
        for rank, error in worker_exceptions.items():
            self._send(Failed(rank, str(error).strip().splitlines()[-1]))


class Worker:
    """One worker's view of the run: its rank, its device, and the way to the driver."""

    def __init__(self, config: Config, data: Manifest, send: Callable[[Event], None]) -> None:
        context = ray.train.get_context()
        self.config = config
        self._data = data
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.stages = stages(config)
        self._send = send
        self._validation = self._make_validation()

    def train(self) -> None:
        """The three stages in order, each from where the run stands."""
        state = self._resume()
        self.send(Started(state.step, self.world_size, self._device_name(), state.losses))
        # One feed for all stages: what it has decoded and prepared serves the next stage too.
        with self._feed_from(state.step) as feed:
            for stage in self.stages:
                if state.step < stage.stop:
                    state = self._train_stage(stage, state, feed)

    def _train_stage(self, stage: Stage, state: TrainState, feed: Feed) -> TrainState:
        config, run = self.config, self.config.run
        share = len(slots_of(self.rank, self.world_size, config.data.batch_size)) / config.data.batch_size
        with StageEngine(config.model, run, stage, state.weights, state.moments, state.step, self.device) as engine:
            meter = _Meter(self, stage, feed)
            for step in range(state.step + 1, stage.stop + 1):
                meter.add(engine.step(next(feed), share))
                is_checkpoint = step % run.checkpoint_every == 0 or step == stage.stop
                if is_checkpoint or step % run.log_every == 0:
                    meter.report(step)
                if self._validation and (step % run.validate_every == 0 or step == self.total):
                    self.send(self._validation.run(engine.model, step, self.device))
                    meter.restart()
                if is_checkpoint:
                    state = self._checkpoint(engine, stage, step, meter.take_losses())
                    meter.restart()
        return state

    @property
    def total(self) -> int:
        """Global steps of the whole run."""
        return self.stages[-1].stop

    def send(self, event: Event) -> None:
        """Tell the driver; rank 0 speaks for all."""
        if self.rank == 0:
            self._send(event)

    def _feed_from(self, step: int) -> Feed:
        config = self.config
        assert config.data.path is not None
        return Feed(
            config.data.path,
            self._data,
            config.data,
            config.model.frames,
            config.run.seed,
            rank=self.rank,
            world_size=self.world_size,
            start_step=step,
        )

    def _resume(self) -> TrainState:
        published = ray.train.get_checkpoint()
        if published is None:
            return TrainState(0, initial_weights(self.config.model, self.config.run.seed), {})
        with published.as_directory() as folder:
            return checkpoint.load(folder)

    def _checkpoint(self, engine: StageEngine, stage: Stage, step: int, losses: tuple[float, ...]) -> TrainState:
        """Gather the state and publish it; Ray Train uploads rank 0's folder and waits for all."""
        before = time.perf_counter()
        # The next stage starts a new Adam.
        moments = engine.moments() if step < stage.stop else {}
        state = TrainState(step, engine.weights(), moments, losses)
        name = f"checkpoint_{step:08d}"
        if self.rank == 0:
            with tempfile.TemporaryDirectory() as folder:
                checkpoint.save(folder, state, self.config)
                published = ray.train.Checkpoint.from_directory(folder)
                ray.train.report({"step": step}, checkpoint=published, checkpoint_dir_name=name)
        else:
            ray.train.report({"step": step}, checkpoint_dir_name=name)
        self.send(Checkpointed(step, time.perf_counter() - before))
        return state

    def _make_validation(self) -> Validation | None:
        path, run = self.config.data.validation_path, self.config.run
        if path is None:
            return None
        return Validation(path, self.config.model.frames, run.validate_samples, self.rank, self.world_size)

    def _device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} thread(s)"


class _Meter:
    """Losses and times between two reports; no synchronisation with the device until one is made."""

    def __init__(self, worker: Worker, stage: Stage, feed: Feed) -> None:
        self._worker = worker
        self._stage = stage
        self._feed = feed
        self._losses: list[torch.Tensor] = []
        self._since_checkpoint: list[float] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new interval: what came before (a checkpoint, a report) is not training time."""
        self._since = time.perf_counter()
        self._waited = self._feed.waited
        self._steps_before = len(self._losses)

    def add(self, loss: torch.Tensor) -> None:
        """Take this worker's part of one step's loss."""
        self._losses.append(loss)

    def report(self, step: int) -> None:
        """Sum the parts over all workers and tell the driver; collective."""
        summed = torch.stack(self._losses)
        dist.all_reduce(summed)
        losses = summed.tolist()  # waits for the device, so before the clock is read
        timed = len(self._losses) - self._steps_before
        elapsed = time.perf_counter() - self._since
        pace = elapsed / timed
        total, batch_size = self._worker.total, self._worker.config.data.batch_size
        self._worker.send(
            Progress(
                stage=self._stage.number,
                step=step,
                total=total,
                losses=tuple(losses),
                lr=self._stage.lr,
                samples_per_second=batch_size / pace,
                data_wait=(self._feed.waited - self._waited) / elapsed,
                eta_seconds=(total - step) * pace,
            )
        )
        self._losses = []
        self._since_checkpoint += losses
        self.restart()

    def take_losses(self) -> tuple[float, ...]:
        """The losses of all steps since the last call; all of them must have been reported."""
        losses, self._since_checkpoint = tuple(self._since_checkpoint), []
        return losses
