"""Names for MLflow, checked by MLflow's own rules before any work is done.

The functions raise a UserError that names the option ``key`` if MLflow would refuse the name.
"""

from collections.abc import Callable
from typing import Any

from mana_dist import storage
from mana_dist.config import MlflowConfig
from mana_dist.errors import UserError, one_line
from mana_dist.model_names import PRETRAINED, is_folder
from mana_dist.registry.tracking_uri import quiet_mlflow

_MAX_NAME = 256  # characters of a registered model's and an experiment's name: a column of MLflow's database
_MAX_RUN_NAME = 250
_FORBIDDEN = "@'\"`"  # models:/NAME@ALIAS and MLflow's search could not find the end of such a name

WEIGHTS_FILE = "model.safetensors"


def check_model_folder(model: str) -> None:
    """Check that a model that is a local path is there; a registry and remote storages are not asked.

    Raises:
        UserError: it is not.
    """
    if is_folder(model) and storage.is_missing(model):
        raise no_such_folder(model)


def no_such_folder(model: str) -> UserError:
    """Return the error that says that a model's folder is not there."""
    names = f"name one that holds {WEIGHTS_FILE}, models:/NAME@ALIAS, or {PRETRAINED}"
    return UserError(f"model {model}: no such folder; {names}")


def check_names(mlflow: MlflowConfig, run_name: str | None = None) -> None:
    """Check the names that a training or a sweep gives to MLflow."""
    check_experiment(mlflow.experiment, "mlflow.experiment")
    if mlflow.registered_model is not None:
        check_model(mlflow.registered_model, "mlflow.registered_model")
    if run_name is not None and len(run_name) > _MAX_RUN_NAME:
        raise UserError(f"run.name has {len(run_name)} characters, MLflow takes {_MAX_RUN_NAME}; give a shorter one")


def check_model(name: str, key: str) -> None:
    """Check the name of a registered model."""
    quiet_mlflow()
    from mlflow.utils.validation import _validate_model_name

    _check(name, key, "another, or null to leave models unregistered", _validate_model_name)
    if any(character in _FORBIDDEN for character in name):
        raise UserError(f"{key} {name!r}: models:/ names cannot hold {' '.join(_FORBIDDEN)}; give another")


def check_experiment(name: str | None, key: str) -> None:
    """Check the name of an experiment."""
    quiet_mlflow()
    from mlflow.utils.validation import _validate_experiment_name

    _check(name, key, "another", _validate_experiment_name)


def check_alias(name: str, key: str) -> None:
    """Check the alias of a registered model."""
    quiet_mlflow()
    from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

    _check(name, key, "another, like @champion", _validate_model_alias_name, _validate_model_alias_name_reserved)


def _check(name: str | None, key: str, instead: str, *rules: Callable[[Any], None]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        for rule in rules:
            rule(name)
    except MlflowException as error:
        raise UserError(f"{key} {name!r}: MLflow refuses this name ({one_line(error)}); give {instead}") from error
    if name is None or len(name) > _MAX_NAME or name != name.strip() or not name.isprintable():
        raise UserError(
            f"{key} {name!r}: a name in MLflow has up to {_MAX_NAME} printable characters, no spaces around them; "
            f"give {instead}"
        )
