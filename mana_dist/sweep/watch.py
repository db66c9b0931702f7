"""The sweep's process while trials run: shows them, writes outcomes that they could not write, and ends them."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from mana_dist.console import log
from mana_dist.registry.tracking_uri import failures
from mana_dist.sweep import trial_outcomes
from mana_dist.sweep.board import Board
from mana_dist.sweep.trial_messages import Report
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import Trial
from mana_dist.train import run_record
from mana_dist.train.elastic.interrupts import Interrupts

GRACE = 25.0
"""Seconds that trials have for a last checkpoint; Ray may give a job that is stopped 30."""


class Watch:
    """The sweep's :class:`mana_dist.sweep.tuning.Watcher`.

    Args:
        trials: those that run.
        folder: of the sweep.
        tracking_uri: of their MLflow runs.
        board, interrupts: the sweep's.
        check: raises LostError if another attempt has the sweep.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        folder: str,
        tracking_uri: str,
        board: Board,
        interrupts: Interrupts,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._trials: Mapping[str, Trial] = {trial.name: trial for trial in trials}
        self._before = {name: trial_outcomes.read(folder, name) for name in self._trials}
        self._processes: dict[str, int] = {}
        self._check = check
        self._folder, self._tracking_uri, self._board, self._interrupts = folder, tracking_uri, board, interrupts

    def reported(self, name: str, report: Report) -> None:
        """Show a trial's report."""
        self._board.report(name, report)
        if report.process is not None:
            self._processes[name] = report.process

    def ended(self, name: str, error: str) -> None:
        """Take note that a trial is over; the outcome of one that died for good, or was stopped, is written here."""
        self._board.ended(name)
        self._processes.pop(name, None)
        self._check()
        if trial_outcomes.read(self._folder, name) not in (None, self._before[name]):
            return
        status, reason = (Status.FAILED, error) if error else (Status.STOPPED, "early, by ASHA")
        trial_outcomes.write(self._folder, name, Outcome(status=status, reason=reason))
        self._close(self._trials[name], "FAILED" if error else "KILLED")

    def turn(self) -> None:
        """Show the trials; after an interrupt, end them in order, and then the sweep.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            Terminated: after SIGTERM.
            LostError: another attempt has the sweep.
        """
        self._check()
        self._board.refresh()
        if self._interrupts.requested.is_set():
            log.info(f"{self._interrupts.reason}: {len(self._processes)} trial(s) save a checkpoint")
            self._stop()
            raise self._interrupts.error()

    def _stop(self) -> None:
        deadline = time.monotonic() + GRACE
        left = [process for process in self._processes.values() if _ends(process)]
        while left and time.monotonic() < deadline:
            time.sleep(0.2)
            left = [process for process in left if _is_left(process)]

    def _close(self, trial: Trial, status: str) -> None:
        """Close the MLflow run of a trial that did not end by itself."""
        from mlflow import MlflowClient

        with contextlib.suppress(*failures()):
            record = run_record.load(trial.config)
            if record is not None:
                MlflowClient(self._tracking_uri).set_terminated(record.mlflow_run_id, status)


def _ends(process: int) -> bool:
    """Ask a process to end; False if it has already."""
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def _is_left(process: int) -> bool:
    """Return whether a process still runs. Its parent may be waiting for us, so that it stays a zombie."""
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
