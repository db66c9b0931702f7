"""Messages between the sweep and a trial's process, a line each: the task, and the reports on it."""

import base64
import dataclasses
import json
import pickle
from dataclasses import dataclass

from mana_dist.storage.lease import Fence
from mana_dist.sweep.config import Judging
from mana_dist.sweep.trial_plan import Trial

MARK = "@@mana_dist "
"""Begins the lines of a trial's output that are reports."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a trial's process is to do."""

    trial: Trial  # what to train
    sweep: Fence  # the sweep's folder, and a check that it still belongs to the sender of the task
    parent: str  # the sweep's MLflow run
    tracking_uri: str  # of the server that has that run
    judging: Judging | None  # None for a shared stage 1, which is not evaluated


@dataclass(frozen=True, kw_only=True)
class Report:
    """A trial's progress.

    Attributes:
        what: what it is doing, in a word or two.
        step: global steps done.
        total: global steps of the run.
        output_steps: those of the steps done that could change the model's output: all but stage 2's. Validation PSNR
            does not change in stage 2, and a setting without memory has no stage 2, so trials are compared by this.
        stage: 1 to 3; 0 before and after.
        loss: of the last steps.
        eta_seconds: to the end of training.
        psnr: of a new validation, dB.
        process: id of the trial's process, in its first report.
    """

    what: str
    step: int = 0
    total: int = 0
    output_steps: int = 0
    stage: int = 0
    loss: float | None = None
    eta_seconds: float | None = None
    psnr: float | None = None
    process: int | None = None


def to_line(task: Task) -> str:
    """Return a task as one line, which only a process of the same installation reads."""
    return base64.b64encode(pickle.dumps(task)).decode()


def from_line(line: str) -> Task:
    """Return the task that :func:`to_line` wrote."""
    task: Task = pickle.loads(base64.b64decode(line))  # noqa: S301  # from the process that started this one
    return task


def report_line(report: Report) -> str:
    """Return a report as one line of a trial's output."""
    return MARK + json.dumps(dataclasses.asdict(report))


def parse_report(line: str) -> Report | None:
    """Return the report in a line of a trial's output; None if it is another line, or one mixed with another."""
    if not line.startswith(MARK):
        return None
    try:
        return Report(**json.loads(line.removeprefix(MARK)))
    except (ValueError, TypeError):
        return None
