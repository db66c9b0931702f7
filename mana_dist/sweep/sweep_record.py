"""The file ``sweep.json`` of a sweep's folder: its configuration, its MLflow run, and which model it has registered."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mana_dist import config as configuration
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.data import order
from mana_dist.errors import UserError, redacted
from mana_dist.published_keys import tracked
from mana_dist.storage.retry import persistently

FILE = "sweep.json"
# The keys that must not change: trials could not be compared. More settings and seeds are welcome.
_BOUND_KEYS = (
    *(
        "model.",
        "schedule.",
        "data.path",
        "data.weight",
        "data.more",
        "data.batch_size",
        "data.crop",
        "data.reverse",
        "data.validation_path",
    ),
    *("run.clip_gradients", "run.ema", "run.init", "run.precision", "run.device"),
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A sweep as it was begun."""

    kind: str  # of the sweep
    tracking_uri: str  # where it is tracked; in the file without a password
    mlflow_run_id: str  # its MLflow run; empty before there is one
    config: Mapping[str, Any]  # its configuration, flat
    settings: tuple[str, ...]  # labels of its rows so far
    samples: int  # seeds per setting so far
    best: str = ""  # the trial whose model it has registered
    registered: str = ""  # ``models:/NAME/VERSION`` of that model
    order: int = order.VERSION  # version of the order of samples in its trials' trainings
    candidate: str = ""  # the decision then on the registry's alias ``candidate``


def flat(config: Config) -> dict[str, Any]:
    """Return a configuration as JSON gives it back, without the tracking server's URI."""
    values: dict[str, Any] = json.loads(json.dumps(configuration.flatten(tracked(configuration.to_mapping(config)))))
    return values


def load(folder: str) -> Record | None:
    """Return the record of the sweep in ``folder``; None if it is new.

    Raises:
        UserError: the file is not one.
    """
    uri = storage.join(folder, FILE)
    try:
        values = json.loads(persistently(storage.read_bytes, uri))
        return Record(**{"order": order.UNRECORDED, **values, "settings": tuple(values["settings"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{uri} is damaged or of another version ({error}); give another run.name") from error


def save(folder: str, record: Record) -> None:
    """Write a record to the sweep's folder."""
    values = dataclasses.asdict(record) | {"tracking_uri": redacted(record.tracking_uri)}
    persistently(storage.write_bytes, storage.join(folder, FILE), json.dumps(values).encode())


def check_same(name: str, old: Record, new: Record) -> None:
    """Check that a sweep continues as it was begun; more settings and seeds are welcome.

    Raises:
        UserError: it does not; names the first thing that differs.
    """
    order.check_version(f"sweep {name}", old.order)
    missing = [label for label in old.settings if label not in new.settings]
    if missing or new.samples < old.samples:
        raise UserError(
            f"sweep {name} has {', '.join(old.settings)} with {old.samples} seed(s) each; give all of them again, its "
            "table and its best model are theirs too (more are welcome), or another run.name to start anew"
        )
    differing: list[tuple[str, Any, Any]] = [
        ("kind", old.kind, new.kind),
        ("mlflow.tracking_uri", redacted(old.tracking_uri), redacted(new.tracking_uri)),
    ]
    keys = [key for key in new.config if key.startswith(_BOUND_KEYS)]
    defaults = flat(Config())  # of keys that came after it was begun
    differing += [(key, old.config.get(key, defaults[key]), new.config[key]) for key in keys]
    for key, before, now in differing:
        if before != now:
            raise UserError(
                f"sweep {name} was begun with {key} {before}, now it is {now}; give the old value to go on with it, "
                "or another run.name to start anew"
            )
