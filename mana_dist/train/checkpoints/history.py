"""A run's checkpoints: ``<run>/checkpoint_<step>/``, the newest whole one to go on from, the last few kept.

With ``run.keep_best``, ``<run>/best.json`` names the one that was validated best, which is kept too.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.storage.retry import persistently
from mana_dist.train.checkpoints import checkpoint
from mana_dist.train.checkpoints.checkpoint import DamagedError, TrainState, UnfinishedError
from mana_dist.train.run_record import run_folder
from mana_dist.train.schedule import stages
from mana_dist.train.tracking.events import Damaged

BEST_FILE = "best.json"
_NAME = re.compile(r"checkpoint_(\d{8,})")


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a run.

    Attributes:
        state: its state; None if the run has never written a whole one.
        damaged: newer ones that cannot be used, newest first.
    """

    state: TrainState | None
    damaged: tuple[Damaged, ...]


@dataclass(frozen=True)
class Best:
    """The best validation of a run.

    Attributes:
        step: global steps done before it.
        score: by ``run.keep_best``.
    """

    step: int
    score: float


class Checkpoints:
    """The checkpoints of one run.

    Args:
        config: names the run's folder and how many checkpoints to keep, and is written into each of them.
        check: called before each change of the folder; what it raises leaves the folder as it is.
    """

    def __init__(self, config: Config, check: Callable[[], None] = lambda: None) -> None:
        self._config = config
        self._folder = run_folder(config)
        self._check = check
        self._damaged: set[int] = set()

    def folder(self, step: int) -> str:
        """Return the URI of the checkpoint after ``step`` global steps."""
        return storage.join(self._folder, f"checkpoint_{step:08d}")

    def newest(self) -> Found:
        """Read the newest whole checkpoint.

        Raises:
            UserError: there are checkpoints, but none can be used; or a newer version of this program wrote one.
            OSError: the storage cannot be reached.
        """
        damaged: list[Damaged] = []
        all_unfinished = True
        for step in sorted(self._steps(), reverse=True):
            try:
                return Found(self.read(step), tuple(damaged))
            except DamagedError as error:
                all_unfinished &= isinstance(error, UnfinishedError)
                damaged.append(Damaged(self.folder(step), str(error)))
                self._damaged.add(step)
        if not all_unfinished:
            reasons = "; ".join(f"{one.checkpoint}: {one.reason}" for one in damaged)
            raise UserError(
                f"run {self._config.run.name}: none of its checkpoints can be used ({reasons}); "
                "restore one of them, or give another run.name to start anew"
            )
        return Found(None, tuple(damaged))

    def read(self, step: int) -> TrainState:
        """Read the checkpoint after ``step`` global steps.

        Raises:
            DamagedError: it is not the state after ``step`` steps, or see :func:`.checkpoint.read`.
            UserError, OSError: see there.
        """
        state = checkpoint.read(self.folder(step))
        if state.step != step:
            raise DamagedError(f"{checkpoint.PROGRESS_FILE} is of step {state.step}, the folder's name of {step}")
        # Else Adam would silently start anew.
        if not state.moments and any(stage.start < step < stage.stop for stage in stages(self._config)):
            raise DamagedError(f"{checkpoint.OPTIMIZER_FILE} is missing in the middle of a stage")
        return state

    def write(self, state: TrainState) -> None:
        """Write a checkpoint, then delete the oldest beyond ``run.keep_checkpoints`` whole ones; the best one stays.

        Raises:
            OSError: the storage does not take it; the checkpoints before are as they were.
        """
        checkpoint.write(self.folder(state.step), state, self._config, self._check)
        self._damaged.discard(state.step)
        steps = sorted(self._steps(), reverse=True)
        whole = [step for step in steps if step not in self._damaged and self._is_finished(step)]
        oldest_kept = whole[: self._config.run.keep_checkpoints][-1]
        best = self.best()
        for step in steps:
            if step < oldest_kept and (best is None or step != best.step):
                self._check()
                checkpoint.remove(self.folder(step))
                self._damaged.discard(step)

    def best(self) -> Best | None:
        """Return the best validation so far whose checkpoint is there; None without ``run.keep_best``.

        Raises:
            OSError: the storage cannot be reached.
        """
        if self._config.run.keep_best is None:
            return None
        try:
            found = Best(**json.loads(persistently(storage.read_bytes, self._best_uri)))
            return found if self._is_finished(found.step) else None
        except (FileNotFoundError, ValueError, TypeError):  # none yet, or not written by this program
            return None

    def note_validation(self, step: int, score: float) -> None:
        """Remember a validation if it is the best so far; its checkpoint must be whole.

        Raises:
            OSError: the storage does not take it.
        """
        best = self.best()
        if best is None or step == best.step or score > best.score:
            self._check()
            data = json.dumps(dataclasses.asdict(Best(step, score))).encode()
            persistently(storage.write_bytes, self._best_uri, data)

    @property
    def _best_uri(self) -> str:
        return storage.join(self._folder, BEST_FILE)

    def _steps(self) -> list[int]:
        try:
            entries = persistently(storage.list_folder, self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        matches = (_NAME.fullmatch(entry.rpartition("/")[2]) for entry in entries)
        return [int(match[1]) for match in matches if match]

    def _is_finished(self, step: int) -> bool:
        progress = storage.join(self.folder(step), checkpoint.PROGRESS_FILE)
        return persistently(storage.exists, progress)
