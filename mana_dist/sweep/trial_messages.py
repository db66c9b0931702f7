"""What the sweep tells a trial's process, and what that tells back: a line of JSON each."""

import base64
import dataclasses
import json
import pickle
from dataclasses import dataclass

from mana_dist.storage.lease import Fence
from mana_dist.sweep.judging import Judging
from mana_dist.sweep.trial_plan import Trial

MARK = "@@mana_dist "
"""Begins the lines of a trial's output that are reports."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A trial's orders.

    Attributes:
        trial: what to train.
        sweep: names the sweep's folder, for the ledger, and tells whether it is still that of who sent the task.
        parent: the sweep's MLflow run.
        tracking_uri: where that is.
        judging: None for a shared stage 1, which is not evaluated.
    """

    trial: Trial
    sweep: Fence
    parent: str
    tracking_uri: str
    judging: Judging | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """How far a trial is.

    Attributes:
        what: in a word or two.
        step: global steps done.
        total: global steps of the run.
        output_steps: of those, the ones that could change what the model gives: all but stage 2's. Its validation
            PSNR stands still in stage 2, and a setting without memory has none, so trials are compared by this.
        stage: 1 to 3; 0 before and after.
        loss: of the last steps.
        eta_seconds: to the end of training.
        psnr: of the last validation, dB; None before one, and where none is new.
        process: the trial's process on the sweep's node; None where it is not new.
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
    """A report as one line of a trial's output."""
    return MARK + json.dumps(dataclasses.asdict(report))


def parse_report(line: str) -> Report | None:
    """The report in a line of a trial's output; None if it is another line, or one that another was mixed into."""
    if not line.startswith(MARK):
        return None
    try:
        return Report(**json.loads(line.removeprefix(MARK)))
    except (ValueError, TypeError):
        return None
