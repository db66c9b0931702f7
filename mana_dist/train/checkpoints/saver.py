"""A thread that writes checkpoints: a long upload runs beside the next steps."""

import errno
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Self

import torch
from torch import Tensor

from mana_dist.errors import UserError
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.tracking.events import Checkpointed, Event

PROMPT = 1.0
"""Seconds that training waits for its checkpoint before it goes on."""


class Saver:
    """Writes one checkpoint at a time in a thread of its own.

    Training waits up to :data:`PROMPT` seconds for a checkpoint, so that a kill then never costs more than
    ``run.checkpoint_every`` steps; beside a longer write (a large model, a slow store) training goes on, and a kill
    costs the steps of that time too. Where the next checkpoint is due before, training waits. Use as a context manager:
    leaving it waits for the write in progress.

    Args:
        checkpoints: the run's checkpoints.
        send: called with the events.
    """

    def __init__(self, checkpoints: Checkpoints, send: Callable[[Event], None]) -> None:
        self._checkpoints = checkpoints
        self._send = send
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self._saving: Future[None] | None = None
        self._went_on: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True)  # also after an error: a write in progress shall end

    def submit(self, state: TrainState, begun: float) -> None:
        """Write ``state`` in the background.

        Args:
            state: on the CPU, and not changed any more.
            begun: ``time.perf_counter()`` when training stopped to take the state.

        Raises:
            UserError: the save before has failed for good.
        """
        self.wait()
        self._went_on = None
        self._saving = self._executor.submit(self._save, state, begun)
        wait([self._saving], timeout=PROMPT)
        self._went_on = time.perf_counter()

    def note_validation(self, step: int, score: float) -> None:
        """Let the checkpoint of ``step`` be the best one if its score is; waits for the write in progress.

        Raises:
            UserError: a write has failed for good.
        """
        self.wait()
        try:
            self._checkpoints.note_validation(step, score)
        except OSError as error:
            raise _save_error(error, self._checkpoints.folder(step)) from error

    def check(self) -> None:
        """Raise the error of a finished save, if it failed; does not wait."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the write in progress.

        Raises:
            UserError: it has failed for good.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _save(self, state: TrainState, begun: float) -> None:
        _check_finite(state.weights, state.step)
        try:
            self._checkpoints.write(state)
        except OSError as error:
            raise _save_error(error, self._checkpoints.folder(state.step)) from error
        done = time.perf_counter()
        self._send(Checkpointed(state.step, done - begun, (self._went_on or done) - begun))


def _check_finite(weights: Mapping[str, Tensor], step: int) -> None:
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"weight {name} is not finite after step {step}, so no checkpoint is made of it and the one before is "
                "kept; lower schedule.*.lr or set run.clip_gradients, under another run.name"
            )


def _save_error(error: OSError, folder: str) -> UserError:
    kept = "the checkpoint before it is whole; the same command then goes on from there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for checkpoint {folder} ({error}); make room there. {kept}")
    return UserError(f"checkpoint {folder} cannot be written ({error}); mend run.storage. {kept}")
