"""The keys of a configuration that leave the run: with its model, or for MLflow's pages."""

from collections.abc import Mapping
from typing import Any

from mana_dist.errors import redacted

# Keys that go wherever a model goes: its network and its training. A key that is not here stays with the run: it may
# hold a path, a server or a password.
_SHARED = (
    *("model.", "schedule.loss", "schedule.stage1.", "schedule.stage2.", "schedule.stage3."),
    *("data.batch_size", "data.crop", "data.reverse", "data.motion", "data.shuffle_groups"),
    *(
        "run.workers",
        "run.zero_stage",
        "run.precision",
        "run.micro_batch",
        "run.clip_gradients",
        "run.ema",
        "run.seed",
        "run.keep_best",
    ),
)
# Keys that an MLflow run shows.
_TRACKED = (*_SHARED, "data.", "run.", "mlflow.experiment", "mlflow.registered_model", "mlflow.candidate")


def shared(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of nested ``values`` that describe a model and its training, and may go wherever it goes."""
    return _chosen(values, _SHARED)


def tracked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of nested ``values`` that an MLflow run shows: not the server's URI, and no passwords."""
    return _chosen(values, _TRACKED)


def _chosen(values: Mapping[str, Any], keys: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Return those of nested ``values`` whose dotted keys are in ``keys``, or begin with one that ends with a dot."""
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if inner := _chosen(value, keys, f"{name}."):
                chosen[key] = inner
        elif name in keys or name.startswith(tuple(key for key in keys if key.endswith("."))):
            chosen[key] = _without_passwords(value)
    return chosen


def _without_passwords(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_passwords(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value
