"""The record in a run's folder beside its checkpoints: its configuration, its data, and where it is tracked."""

import dataclasses
import json
from dataclasses import dataclass

from mana_dist import config as configuration
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.data import order
from mana_dist.data.mixture import Mixture, fingerprint
from mana_dist.errors import UserError, redacted
from mana_dist.model.precision import Precision
from mana_dist.registry.names import WEIGHTS_FILE
from mana_dist.storage.retry import persistently
from mana_dist.train.schedule import stages

# What may differ between the attempts of one run: it moves neither the samples nor the arithmetic of a step
# (workers, ZeRO stage and precision only round differently).
_FREE_KEYS = (
    # The data may have moved: the fingerprint shows whether they, and their weights, are the same.
    *("mlflow.", "run.", "data.path", "data.weight", "data.more", "data.validation_path"),
    *("data.prefetch", "data.readers", "data.cache_mb", "data.disk_cache", "data.disk_cache_mb"),
)
_BOUND_KEYS = ("run.seed", "run.clip_gradients", "run.ema")


@dataclass(frozen=True)
class RunRecord:
    """The ties of a run to its data and to MLflow.

    Attributes:
        data_fingerprint: digest of the shards that it trains on.
        tracking_uri: server or database of its MLflow run, without a password.
        mlflow_run_id: its MLflow run.
        registered: its finished model in the registry, ``models:/NAME/VERSION``, once it is there.
        order: version of the sample order that it trains by.
        candidate: the decision about the registry's alias ``candidate``, one line.
        init: SHA-256 of the model's weights that it began with; None if it began at random.
    """

    data_fingerprint: str
    tracking_uri: str
    mlflow_run_id: str
    registered: str | None = None
    order: int = order.VERSION
    candidate: str | None = None
    init: str | None = None

    def is_tracked_in(self, tracking_uri: str) -> bool:
        """Return whether its MLflow run is at ``tracking_uri``, of which older versions recorded the password too."""
        return redacted(self.tracking_uri) == redacted(tracking_uri)


def run_folder(config: Config) -> str:
    """Return ``<run.storage>/<run.name>``."""
    assert config.run.name is not None
    return storage.join(config.run.storage, config.run.name)


def model_folder_of(config: Config) -> str:
    """Return the URI of the run's finished model."""
    return storage.join(run_folder(config), "model")


def is_finished(config: Config) -> bool:
    """Return whether the finished model is there, of the whole schedule: a run goes on when its steps are raised."""
    model = model_folder_of(config)
    if not persistently(storage.exists, storage.join(model, WEIGHTS_FILE)):  # the last file to be written
        return False
    uri = storage.join(model, "config.yaml")
    try:
        made = configuration.load(persistently(storage.read_bytes, uri).decode(), uri)
    except FileNotFoundError:
        return False
    return stages(made) == stages(config)


def load(config: Config) -> RunRecord | None:
    """Return the record of the run, None if the run is new."""
    try:
        values = json.loads(persistently(storage.read_bytes, _record_uri(config)))
    except FileNotFoundError:
        return None
    return RunRecord(**{"order": order.UNRECORDED, **values})


def precision(config: Config) -> Precision | None:
    """Return the precision that the run began with; None if it began before there was a choice."""
    before = started_with(config).run.precision
    return None if before == "auto" else before


def started_with(config: Config) -> Config:
    """Return the configuration of the run's last attempt, without passwords."""
    uri = _config_uri(config)
    return configuration.load(persistently(storage.read_bytes, uri).decode(), uri)


def check_same_training(config: Config, mixture: Mixture, record: RunRecord) -> None:
    """Check that resuming would go on with the same training.

    A finished run may get more steps at its end; that is logged.

    Raises:
        UserError: the run was started with another sample order, other settings or other data; names the first key
            that differs.
    """
    order.check_version(f"run {config.run.name}", record.order)
    before = started_with(config)
    is_longer = _is_longer(config, before)
    old = configuration.flatten(configuration.to_mapping(before))
    new = configuration.flatten(configuration.to_mapping(config))
    for key, value in new.items():
        if key not in _BOUND_KEYS and key.startswith(_FREE_KEYS):
            continue
        if is_longer and key.startswith("schedule."):
            continue
        if old[key] != value:
            raise UserError(
                f"run {config.run.name} was started with {key} {old[key]}, now it is {value}; "
                "give the old value to resume it, or another run.name to start anew"
            )
    if record.data_fingerprint != fingerprint(mixture):
        raise UserError(
            f"run {config.run.name}: the shards in data.path {config.data.path} or data.more, or their weights, have "
            "changed since it was started, so it cannot go on with the same samples; restore them, or give another "
            "run.name to start anew"
        )
    if is_longer:
        log.info(
            f"run {config.run.name} was finished at step {stages(before)[-1].stop}; its steps were raised, so it goes "
            f"on to step {stages(config)[-1].stop}"
        )


def _is_longer(config: Config, before: Config) -> bool:
    """Return whether a finished run is to go on: the steps it has made are as they were, and more come after them."""
    done, planned = stages(before), stages(config)
    *same, last = done
    if len(planned) < len(done) or planned == done:
        return False
    raised = planned[len(same)]
    is_same = [*planned[: len(same)], dataclasses.replace(raised, stop=last.stop)] == list(done)
    return is_same and raised.stop >= last.stop and is_finished(before)


def save(config: Config, record: RunRecord) -> None:
    """Write the run's configuration and record; the record last, so that a run with a record is whole."""
    files = [
        (_config_uri(config), redacted(configuration.to_yaml(config)).encode()),
        (_record_uri(config), redacted(json.dumps(dataclasses.asdict(record), indent=2)).encode()),
    ]
    for uri, data in files:
        persistently(storage.write_bytes, uri, data)


def _config_uri(config: Config) -> str:
    return storage.join(run_folder(config), "config.yaml")


def _record_uri(config: Config) -> str:
    return storage.join(run_folder(config), "run.json")
