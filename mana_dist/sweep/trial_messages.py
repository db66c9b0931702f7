"""What the sweep tells a trial's process, and what that tells back: a line of JSON each."""

import dataclasses
import json
from dataclasses import dataclass

from mana_dist import config as configuration
from mana_dist.storage.lease import Fence
from mana_dist.sweep.judging import Judging, from_json
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
    """A task as one line."""
    trial, base = task.trial, task.trial.base
    content = {
        "name": trial.name,
        "config": configuration.to_mapping(trial.config),
        "base": None if base is None else {"name": base.name, "config": configuration.to_mapping(base.config)},
        "sweep": dataclasses.asdict(task.sweep),
        "parent": task.parent,
        "tracking_uri": task.tracking_uri,
        "judging": None if task.judging is None else dataclasses.asdict(task.judging),
    }
    return json.dumps(content)


def from_line(line: str) -> Task:
    """What :func:`to_line` wrote; without the setting, which a trial does not need."""
    values = json.loads(line)
    base, judging = values["base"], values["judging"]
    trial = Trial(
        values["name"],
        configuration.from_mapping(values["config"], values["name"]),
        None,
        None if base is None else Trial(base["name"], configuration.from_mapping(base["config"], base["name"]), None),
    )
    return Task(
        trial=trial,
        sweep=Fence(**values["sweep"]),
        parent=values["parent"],
        tracking_uri=values["tracking_uri"],
        judging=from_json(judging),
    )


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
