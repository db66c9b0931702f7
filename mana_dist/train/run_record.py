"""What a run's folder remembers beside its checkpoints: its configuration and where it is tracked."""

import dataclasses
import json
from dataclasses import dataclass

from mana_dist import config as configuration
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError

# What may differ between the attempts of one run: it moves neither the samples nor the arithmetic of a step
# (workers, ZeRO stage and precision only round differently).
_FREE_KEYS = ("mlflow.", "run.", "data.prefetch", "data.cache_mb", "data.validation_path")
_BOUND_KEYS = ("run.seed",)


@dataclass(frozen=True)
class RunRecord:
    """A run's tie to MLflow.

    Attributes:
        tracking_uri: where its MLflow run lives.
        mlflow_run_id: its MLflow run.
        registered_version: the registry's version of its finished model, once there is one.
    """

    tracking_uri: str
    mlflow_run_id: str
    registered_version: str | None = None


def run_folder(config: Config) -> str:
    """``<run.storage>/<run.name>``."""
    assert config.run.name is not None
    return storage.join(config.run.storage, config.run.name)


def model_folder_of(config: Config) -> str:
    """Where the run's finished model lies once training is done."""
    return storage.join(run_folder(config), "model")


def bind_config(config: Config) -> bool:
    """Tie the run's folder to ``config``, or check that it is tied to the same training already.

    Returns:
        Whether the run existed before.

    Raises:
        UserError: the run was started with other settings; names the first key that differs.
    """
    uri = storage.join(run_folder(config), "config.yaml")
    try:
        before = configuration.load(storage.read_bytes(uri).decode(), uri)
    except FileNotFoundError:
        storage.write_bytes(uri, configuration.to_yaml(config).encode())
        return False
    old = configuration.flatten(configuration.to_mapping(before))
    new = configuration.flatten(configuration.to_mapping(config))
    for key, value in new.items():
        if key not in _BOUND_KEYS and key.startswith(_FREE_KEYS):
            continue
        if old[key] != value:
            raise UserError(
                f"run {config.run.name} was started with {key} {old[key]}, now it is {value}; "
                "give the old value to resume it, or another run.name to start anew"
            )
    return True


def load_record(config: Config) -> RunRecord | None:
    """The run's record, if it has one."""
    try:
        return RunRecord(**json.loads(storage.read_bytes(_record_uri(config))))
    except FileNotFoundError:
        return None


def save_record(config: Config, record: RunRecord) -> None:
    """Write the run's record."""
    storage.write_bytes(_record_uri(config), json.dumps(dataclasses.asdict(record), indent=2).encode())


def _record_uri(config: Config) -> str:
    return storage.join(run_folder(config), "run.json")
