"""Datasets as the inputs of an MLflow run, which its page and its models' pages show."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mana_dist import storage
from mana_dist.errors import redacted

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

LONGEST_DIGEST = 36
"""Characters of a dataset's digest; MLflow's bound."""


def dataset_input(name: str, digest: str, uri: str, profile: Mapping[str, object], context: str) -> "DatasetInput":
    """Return a dataset as an input of a run.

    Args:
        name: its name; a password in it is hidden.
        digest: of its content; the first :data:`LONGEST_DIGEST` characters are kept.
        uri: where it is; a password in it is hidden.
        profile: what it holds.
        context: what it is for, such as ``training``.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = redacted(storage.resolve(uri))
    source = json.dumps({"url" if storage.is_web(uri) else "uri": place})
    dataset = Dataset(
        redacted(name), digest[:LONGEST_DIGEST], _source_type(uri), source, profile=json.dumps(dict(profile))
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _source_type(uri: str) -> str:
    if storage.is_web(uri):
        return "http"
    return uri.partition("://")[0] if storage.is_remote(uri) else "local"
