"""The training worker: the paper's schedule, step by step."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Never

import ray.train
import ray.train.torch
import torch
from torch import Tensor

from mana_dist.allocator import keep_freed_memory
from mana_dist.config import Config
from mana_dist.data.feed import Feed
from mana_dist.data.mixture import Mixture
from mana_dist.errors import UserError
from mana_dist.model import Mana
from mana_dist.model.mana import initial_weights
from mana_dist.storage.lease import Fence
from mana_dist.train.checkpoints.checkpoint import DamagedError, TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.checkpoints.saver import Saver
from mana_dist.train.elastic import shared_storage, suspects
from mana_dist.train.elastic.consensus import Consensus
from mana_dist.train.elastic.failures import memory_errors_as_user_errors
from mana_dist.train.elastic.leave_requests import LeaveRequests
from mana_dist.train.elastic.watchdog import Watchdog
from mana_dist.train.engine import StageEngine
from mana_dist.train.meter import Meter
from mana_dist.train.planning.costs import device_peak
from mana_dist.train.schedule import Stage, stages
from mana_dist.train.tracking.events import Event, Stalled, Started
from mana_dist.train.validation import Validation, ended_stage

# What rank 0 sends to the others at every step, as bits.
_LEAVE = 1  # save everything and leave
_LOOK = 2  # ask Ray whether a node is about to go

_LOOK_EVERY = 10.0  # seconds
_SLOW = 5.0  # factor of patience for building engines, compiling and validating, which take longer than a step
_LEAST_LOSSES = 1000  # kept in checkpoints, in case the driver did not log them


@dataclass(frozen=True)
class WorkerTask:
    """What the driver gives to every worker.

    Attributes:
        config: the run's configuration.
        data: the training data, as they were when the run was started.
        send: sends an event to the driver.
        leave_requests: the driver's requests to save everything and leave.
        fence: checks that the run's folder is still the driver's.
    """

    config: Config
    data: Mixture
    send: Callable[[Event], None]
    leave_requests: LeaveRequests
    fence: Fence


def train_worker(task: WorkerTask) -> int:
    """Train from the newest checkpoint, or from the start, to the schedule's end or until the driver wants it to end.

    Returns:
        The global steps done; all of them are in a checkpoint.
    """
    keep_freed_memory()
    with memory_errors_as_user_errors(task.config):
        return Worker(task).train()


class Worker:
    """One worker's view of the run: its rank, its device, and the way to the driver."""

    def __init__(self, task: WorkerTask) -> None:
        context = ray.train.get_context()
        self.config = config = task.config
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.stages = stages(config)
        self._task = task
        self._consensus = Consensus(collective_timeout(config))
        self._checkpoints = Checkpoints(config, check=task.fence.check)
        self._losses: tuple[float, ...] = ()
        self._leaving = False
        self._looked = time.monotonic()
        self._preempted: set[str] = set()

    def train(self) -> int:
        """Train the three stages in order, from where the run stands; returns the global steps done."""

        def report_stall(seconds: float, stacks: str) -> None:
            self._task.send(Stalled(self.rank, seconds, stacks))

        with (
            Watchdog(self.config.run.stall_timeout, report_stall) as self._watchdog,
            self._task.leave_requests.listen() if self.rank == 0 else contextlib.nullcontext() as self._listener,
            Saver(self._checkpoints, self.send) as self._saver,
        ):
            self._watchdog.beat(_SLOW)
            # All workers must see the folder that the driver sees.
            seen = self._consensus.gather(shared_storage.sees(self._task.fence))
            shared_storage.check_all(seen, self.config.run.storage)
            with memory_errors_as_user_errors(self.config, validating=True):
                self._validation = self._make_validation()
            self._peak = device_peak(self.device, self.config.run.arithmetic)
            state = self._resume()
            self._losses = state.losses
            self.send(Started(state.step, self.world_size, self._device_name(), state.losses, str(self._peak)))
            self._validate_resumed(state)
            # One feed for all stages: what it has decoded and prepared serves the next stage too.
            with self._feed_from(state.step) as feed:
                for stage in self.stages:
                    if state.step < stage.stop and not self._leaving:
                        state = self._train_stage(stage, state, feed)
        if self.rank == 0:  # and the saver has saved it
            self._task.leave_requests.report_left(state.step)
        return state.step

    def _train_stage(self, stage: Stage, state: TrainState, feed: Feed) -> TrainState:
        config, run = self.config, self.config.run
        self._watchdog.beat(_SLOW)
        moments = state.moments if state.step > stage.start else {}  # those of a stage that was the last are over
        with StageEngine(
            config.model, run, stage, state.weights, moments, state.step, self.device, state.average
        ) as engine:
            meter = Meter(config, stage, feed, self.send, self.device, self._peak)
            parts: list[torch.Tensor] = []
            for step in range(state.step + 1, stage.stop + 1):
                parts.append(engine.step(next(feed), config.data.batch_size))
                meter.add(parts[-1], engine.gradient_norm)
                self._watchdog.beat()
                self._saver.check()
                due = self._is_wanted() or step % run.checkpoint_every == 0 or step == stage.stop
                due |= run.keep_best is not None and self._is_validated(step)  # it may be the best
                if due or step % run.log_every == 0:
                    self._report(meter, step, parts)
                    parts = []
                if due:
                    state = self._checkpoint(engine, stage, step, meter.take_losses())
                    meter.restart()
                # After the checkpoint, so that a validation that fails costs no step. One that is skipped to leave in
                # time is made by the next attempt.
                if self._is_validated(step) and (step == self.total or not self._leaving):
                    self._validate(engine.average() or engine.weights(), step)
                    meter.restart()
                if self._leaving:
                    break
        return state

    def _is_validated(self, step: int) -> bool:
        return self._validation is not None and (step % self.config.run.validate_every == 0 or step == self.total)

    def _validate(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Validate in fp32, whatever the training's precision: the scores decide between models."""
        assert self._validation is not None
        model = Mana(self.config.model)
        model.load_state_dict(weights)
        self._watchdog.beat(_SLOW)
        with memory_errors_as_user_errors(self.config, validating=True):
            ended = ended_stage(step, self.config.run.validate_every, self.stages)
            validated = self._validation.run(model.to(self.device), step, self.device, ended)
        self.send(validated)
        if self.config.run.keep_best and self.rank == 0:
            self._saver.note_validation(step, getattr(validated, self.config.run.keep_best))
        self._watchdog.beat(_SLOW)

    def _validate_resumed(self, state: TrainState) -> None:
        """Make the validation that may be missing, since it comes after its step's checkpoint.

        If it is not missing, the same numbers come again and are not logged.
        """
        if state.step and self._is_validated(state.step):
            self._validate(state.model, state.step)

    @property
    def total(self) -> int:
        """Global steps of the whole run."""
        return self.stages[-1].stop

    def send(self, event: Event) -> None:
        """Send an event to the driver, from rank 0 for all workers."""
        if self.rank == 0:
            self._task.send(event)

    def _feed_from(self, step: int) -> Feed:
        config = self.config
        return Feed(
            self._task.data,
            config.data,
            config.model.frames,
            config.run.seed,
            rank=self.rank,
            world_size=self.world_size,
            start_step=step,
        )

    def _resume(self) -> TrainState:
        """Return the state to go on from; rank 0 chooses, so that all take the same."""
        chosen: int | UserError | None = None
        state: TrainState | None = None
        if self.rank == 0:
            try:
                found = self._checkpoints.newest()
                for damaged in found.damaged:
                    self.send(damaged)
                state = found.state
                chosen = state.step if state else None
            except UserError as error:
                chosen = error
        chosen = self._consensus.broadcast(chosen)
        if isinstance(chosen, UserError):
            raise chosen
        if chosen is None:
            return TrainState(0, initial_weights(self.config.model, self.config.run.seed), {})
        try:
            return state or self._checkpoints.read(chosen)
        except DamagedError as error:
            raise UserError(
                f"checkpoint {self._checkpoints.folder(chosen)} is whole for worker 0 but not for worker {self.rank} "
                f"({error}); see to it that run.storage {self.config.run.storage} is the same folder on all nodes"
            ) from error

    def _checkpoint(self, engine: StageEngine, stage: Stage, step: int, losses: tuple[float, ...]) -> TrainState:
        """Gather the state on the CPU; rank 0 writes it in the background."""
        begun = time.perf_counter()
        self._watchdog.beat(_SLOW)
        # The next stage starts a new Adam; the last one may go on, if its steps are raised.
        moments = engine.moments() if step < stage.stop or step == self.total else {}
        kept = max(_LEAST_LOSSES, 2 * self.config.run.checkpoint_every)
        self._losses = (self._losses + losses)[-kept:]
        state = TrainState(step, engine.weights(), moments, self._losses, engine.average())
        if self.rank == 0:
            self._saver.submit(state, begun)
        return state

    def _is_wanted(self) -> bool:
        """Return whether there is reason for a checkpoint now; every worker comes to the same answer. Collective.

        The reasons: the driver wants the workers to leave, or Ray has said that a node is about to be taken away.
        """
        flags = 0
        if self._listener is not None:
            look = time.monotonic() - self._looked > _LOOK_EVERY
            self._looked = time.monotonic() if look else self._looked
            flags = (_LEAVE if self._listener.leave else 0) | (_LOOK if look else 0)
        flags = self._consensus.exchange(flags)
        self._leaving = bool(flags & _LEAVE)
        return bool(flags & _LOOK and self._is_node_going()) or self._leaving

    def _is_node_going(self) -> bool:
        """Return whether Ray announces that another node is about to be taken away; collective."""
        if os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") == "0":
            return False
        announced = ray.train.get_preemption_info()
        nodes = set(announced.preempted_node_ids) if announced else set()
        is_news = not nodes <= self._preempted
        self._preempted |= nodes
        return is_news

    def _report(self, meter: Meter, step: int, parts: list[torch.Tensor]) -> None:
        """Report the steps up to ``step``, for which this worker's parts of the losses are ``parts``; collective.

        Raises:
            UserError: a loss or gradient was not finite; on all workers alike, once its samples are written down.
        """
        losses = meter.report(step)
        numbers = range(step - len(losses) + 1, step + 1)
        for number, loss, norm, part in zip(numbers, losses, meter.gradient_norms, parts, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._give_up(number, loss, norm, part)

    def _give_up(self, step: int, loss: float, norm: float, part: torch.Tensor) -> Never:
        finite = self._consensus.gather(bool(torch.isfinite(part).item()))
        message = None
        if self.rank == 0:
            with contextlib.suppress(UserError):
                self._saver.wait()
            try:
                listed = f"are listed in {suspects.record(self.config, self._task.data, step, loss, norm, finite)}"
            except (OSError, UserError) as error:
                listed = f"could not be listed ({error})"
            message = (
                f"step {step} has loss {loss:g} and gradient norm {norm:g}; its samples {listed}, and the "
                "last checkpoint before it is kept. Look at the samples, lower schedule.*.lr or set "
                "run.clip_gradients, under another run.name"
            )
        raise UserError(self._consensus.broadcast(message))  # only now, so that none ends before rank 0 is done

    def _make_validation(self) -> Validation | None:
        path, run = self.config.data.validation_path, self.config.run
        if path is None:
            return None
        return Validation(path, self.config.model.frames, run.validate_samples, self.rank, self.world_size)

    def _device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} thread(s)"


def collective_timeout(config: Config) -> float:
    """Return the seconds after which a worker stops waiting for the others: longer than the watchdog's."""
    return _SLOW * config.run.stall_timeout + 120
