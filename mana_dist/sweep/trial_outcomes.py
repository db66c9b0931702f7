"""Outcomes of trials, as small JSON files in the sweep's storage, each of which is whole or not there."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mana_dist import storage
from mana_dist.errors import UserError, redacted
from mana_dist.evaluate.results import Scores
from mana_dist.storage.retry import persistently
from mana_dist.sweep.config import Judging

LEDGER_FOLDER = "ledger"


class Status(StrEnum):
    """The way in which a trial ended."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        status: the way in which it ended.
        reason: of a failure or a stop, one line.
        model: URI of the trained model's folder.
        mlflow_run_id: its MLflow run.
        judging: how it was evaluated.
        scores: means over the clips of each dataset, by its name, in the data's order.
        mean: over all clips.
        step_seconds: of an optimizer step in the last stage, the median; None if none was timed.
        memory_bytes: the most that a worker took: of GPU memory, else resident.
        seconds: from its start to its end, of the last attempt.
    """

    status: Status
    reason: str = ""
    model: str = ""
    mlflow_run_id: str = ""
    judging: Judging | None = None
    scores: Mapping[str, Scores] = field(default_factory=dict)
    mean: Scores | None = None
    step_seconds: float | None = None
    memory_bytes: int | None = None
    seconds: float = 0.0


def write(sweep_folder: str, trial: str, outcome: Outcome) -> None:
    """Write a trial's outcome; an infinite PSNR becomes JavaScript's ``Infinity``."""
    values = dataclasses.asdict(outcome)
    values["scores"] = [{"dataset": name, "scores": scores.plain()} for name, scores in outcome.scores.items()]
    values["mean"] = None if outcome.mean is None else outcome.mean.plain()
    text = redacted(json.dumps(values, indent=2))
    persistently(storage.write_bytes, _uri(sweep_folder, trial), text.encode())


def read(sweep_folder: str, trial: str) -> Outcome | None:
    """Return a trial's outcome; None if it has not ended.

    Raises:
        UserError: the file is not one of these.
    """
    uri = _uri(sweep_folder, trial)
    try:
        values = json.loads(persistently(storage.read_bytes, uri))
        scores = {entry["dataset"]: Scores.from_plain(entry["scores"]) for entry in values["scores"]}
        mean = None if values["mean"] is None else Scores.from_plain(values["mean"])
        judging = values["judging"] and Judging(**{**values["judging"], "data": tuple(values["judging"]["data"])})
        typed = {"status": Status(values["status"]), "scores": scores, "mean": mean, "judging": judging}
        return Outcome(**{**values, **typed})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{uri} is damaged ({error}); delete it, and the trial is evaluated again") from error


def _uri(sweep_folder: str, trial: str) -> str:
    return storage.join(sweep_folder, LEDGER_FOLDER, f"{trial}.json")
