"""Names that MLflow is given, checked by its own rules before any work is done."""

from collections.abc import Callable
from typing import Any

from mana_dist.config import MlflowConfig
from mana_dist.errors import UserError, one_line
from mana_dist.registry.tracking_uri import quiet_mlflow

_LONGEST = 256  # characters of a registered model's and an experiment's name: a column of MLflow's database
_LONGEST_RUN = 250
_IN_FILTERS = "@'\"`"  # models:/NAME@ALIAS, and MLflow's search, could not tell where such a name ends


def check_names(mlflow: MlflowConfig, run_name: str | None = None) -> None:
    """Check the names that a training or a sweep gives to MLflow.

    Raises:
        UserError: MLflow would refuse one; names the key.
    """
    check_experiment(mlflow.experiment, "mlflow.experiment")
    if mlflow.registered_model is not None:
        check_model(mlflow.registered_model, "mlflow.registered_model")
    if run_name is not None and len(run_name) > _LONGEST_RUN:
        raise UserError(f"run.name has {len(run_name)} characters, MLflow takes {_LONGEST_RUN}; give a shorter one")


def check_model(name: str, key: str) -> None:
    """Check the name of a registered model; ``key`` is the option that gave it.

    Raises:
        UserError: MLflow would refuse it.
    """
    quiet_mlflow()
    from mlflow.utils.validation import _validate_model_name

    _check(name, key, "another, or null to leave models unregistered", _validate_model_name)
    if any(character in _IN_FILTERS for character in name):
        raise UserError(f"{key} {name!r}: models:/ names cannot hold {' '.join(_IN_FILTERS)}; give another")


def check_experiment(name: str | None, key: str) -> None:
    """Check the name of an experiment; ``key`` is the option that gave it.

    Raises:
        UserError: MLflow would refuse it.
    """
    quiet_mlflow()
    from mlflow.utils.validation import _validate_experiment_name

    _check(name, key, "another", _validate_experiment_name)


def check_alias(name: str, key: str) -> None:
    """Check the alias of a registered model; ``key`` is the option that gave it.

    Raises:
        UserError: MLflow would refuse it.
    """
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
    if name is None or len(name) > _LONGEST or name != name.strip() or not name.isprintable():
        raise UserError(
            f"{key} {name!r}: a name in MLflow has up to {_LONGEST} printable characters, no spaces around them; "
            f"give {instead}"
        )
