"""What a sweep's folder remembers of it: where it is tracked, what it was asked for, which model it has registered."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mana_dist import config as configuration
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.sweep.task import Judging
from mana_dist.train.retry import persistently

FILE = "sweep.json"
# What would make trials of one sweep different from each other; more settings and seeds are welcome.
_BOUND_KEYS = ("model.", "schedule.", "data.path", "data.batch_size", "data.crop", "run.clip_gradients")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A sweep as it was begun.

    Attributes:
        kind: of the sweep.
        tracking_uri: where it is tracked.
        mlflow_run_id: its MLflow run.
        config: flat.
        judging: how its models are evaluated.
        best: the trial whose model it has registered.
        registered: ``models:/NAME/VERSION`` of that.
    """

    kind: str
    tracking_uri: str
    mlflow_run_id: str
    config: Mapping[str, Any]
    judging: Judging
    best: str = ""
    registered: str = ""


def flat(config: Config) -> dict[str, Any]:
    """What JSON gives back of a configuration."""
    values: dict[str, Any] = json.loads(json.dumps(configuration.flatten(configuration.to_mapping(config))))
    return values


def load(folder: str) -> Record | None:
    """The record of the sweep in ``folder``; None if it is new."""
    try:
        values = json.loads(persistently(storage.read_bytes, storage.join(folder, FILE)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    judging = Judging(**{**values["judging"], "data": tuple(values["judging"]["data"])})
    return Record(**{**values, "judging": judging})


def save(folder: str, record: Record) -> None:
    """Write it."""
    persistently(storage.write_bytes, storage.join(folder, FILE), json.dumps(dataclasses.asdict(record)).encode())


def check_same(name: str, old: Record, kind: str, config: Config, judging: Judging) -> None:
    """Check that the sweep would go on as it was begun.

    Raises:
        UserError: it would not; names the first thing that differs.
    """
    new = flat(config)
    differing: list[tuple[str, Any, Any]] = [
        ("kind", old.kind, kind),
        ("--evaluate-on", " ".join(old.judging.data), " ".join(judging.data)),
    ]
    differing += [("--evaluate-frames", old.judging.frames, judging.frames)]
    differing += [("--lpips-trunk", old.judging.lpips_trunk, judging.lpips_trunk)]
    differing += [(key, old.config[key], value) for key, value in new.items() if key.startswith(_BOUND_KEYS)]
    for what, before, now in differing:
        if before != now:
            raise UserError(
                f"sweep {name} was begun with {what} {before}, now it is {now}; give the old value to go on with it, "
                "or another run.name to start anew"
            )
