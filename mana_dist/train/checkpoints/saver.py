"""Checkpoints written by a thread of their own: a long upload runs beside the next steps."""

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
"""Seconds that training waits for its checkpoint before it goes on without."""


class Saver:
    """Writes one checkpoint at a time in a thread of its own.

    A checkpoint that is whole within :data:`PROMPT` seconds holds training up for as long, so that a kill never costs
    more than ``run.checkpoint_every`` steps; during a longer one (a large model, a slow store) training goes on, and a
    kill costs the steps of that time too. Where the next one is due before, training waits for it. Use as a context
    manager: leaving it waits for what is on its way.

    Args:
        checkpoints: where to.
        send: takes the events.
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
            self._executor.shutdown(wait=True)  # also after an error: what is on its way shall arrive

    def submit(self, state: TrainState, begun: float) -> None:
        """Write ``state``, whose tensors nobody changes any more, in the background.

        Args:
            state: to write; on the CPU.
            begun: ``time.perf_counter()`` when training stopped to take the state.

        Raises:
            UserError: the save before has failed for good.
        """
        self.wait()
        self._went_on = None
        self._saving = self._executor.submit(self._save, state, begun)
        wait([self._saving], timeout=PROMPT)
        self._went_on = time.perf_counter()

    def check(self) -> None:
        """Raise what a finished save has failed of; does not wait."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is on its way.

        Raises:
            UserError: the save has failed for good; says why.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _save(self, state: TrainState, begun: float) -> None:
        _check_finite(state.weights, state.step)
        try:
            self._checkpoints.write(state)
        except OSError as error:
            raise _told(error, self._checkpoints.folder(state.step)) from error
        done = time.perf_counter()
        self._send(Checkpointed(state.step, done - begun, (self._went_on or done) - begun))


def _check_finite(weights: Mapping[str, Tensor], step: int) -> None:
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"weight {name} is not finite after step {step}, so no checkpoint is made of it and the one before is "
                "kept; lower schedule.*.lr or set run.clip_gradients, under another run.name"
            )


def _told(error: OSError, folder: str) -> UserError:
    kept = "the checkpoint before it is whole; the same command then goes on from there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left for checkpoint {folder} ({error}); make room there. {kept}")
    return UserError(f"checkpoint {folder} cannot be written ({error}); mend run.storage. {kept}")
