"""An evaluation as an MLflow run: the protocol, the numbers, the report, and what was evaluated on what.

Only where a tracking server is asked for. The run is made once the numbers are there.
"""

import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.evaluate.methods import Method, Trained
from mana_dist.evaluate.promote import Promotion
from mana_dist.evaluate.protocol import DatasetProtocol
from mana_dist.evaluate.results import Evaluation, Scores
from mana_dist.tracking_uri import experiment_id, quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_LONGEST_PARAMETER = 6000  # characters; MLflow's bound
_METRICS_AT_ONCE = 1000  # MLflow's bound
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Tracking:
    """Where the run goes.

    Attributes:
        uri: of the tracking server or database.
        experiment: its name.
    """

    uri: str
    experiment: str

    def check(self) -> None:
        """Find the experiment or make it: what is wrong with the server is told before any work.

        Raises:
            UserError: the server cannot be used.
        """
        quiet_mlflow()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            experiment_id(MlflowClient(self.uri), self.experiment)
        except (MlflowException, ImportError, OSError) as error:
            raise UserError(f"--tracking-uri {self.uri} cannot be used ({error}); start it or name another") from error

    def log(
        self, evaluation: Evaluation, methods: Sequence[Method], files: Sequence[str], promotion: Promotion | None
    ) -> str:
        """Log an evaluation.

        Args:
            evaluation: what was found.
            methods: in its order.
            files: URIs of what was written about it.
            promotion: what became of an alias.

        Returns:
            The run's id.

        Raises:
            UserError: the server cannot be used.
        """
        quiet_mlflow()
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        tags = {"mana_dist.command": "evaluate", "mana_dist.methods": ", ".join(evaluation.methods)}
        if promotion is not None:
            tags |= {"mana_dist.promoted": str(promotion.promoted).lower(), "mana_dist.promotion": str(promotion)}
        protocol = evaluation.protocol
        parameters = {entry.name: getattr(protocol, entry.name) for entry in fields(protocol)}
        try:
            client = MlflowClient(self.uri)
            run = client.create_run(experiment_id(client, self.experiment), run_name="evaluation").info.run_id
            client.log_batch(
                run,
                params=[Param(key, _told(value)[:_LONGEST_PARAMETER]) for key, value in parameters.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            _log_inputs(client, run, protocol.datasets, methods)
            metrics = list(_metrics(evaluation, methods))
            for start in range(0, len(metrics), _METRICS_AT_ONCE):
                client.log_batch(run, metrics=metrics[start : start + _METRICS_AT_ONCE])
            _log_files(client, run, files)
            client.set_terminated(run)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"--tracking-uri {self.uri}: the evaluation is done but could not be logged ({error})"
            ) from error
        return str(run)


def _log_inputs(
    client: "MlflowClient", run: str, datasets: Iterable[DatasetProtocol], methods: Iterable[Method]
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    inputs = [
        DatasetInput(
            Dataset(
                entry.name,
                entry.digest,
                _source_type(entry.uri),
                json.dumps({"url" if storage.is_web(entry.uri) else "uri": storage.resolve(entry.uri)}),
                profile=json.dumps({"clips": entry.clips, "layout": entry.layout, "lr": entry.lr}),
            ),
            [InputTag("mlflow.data.context", "evaluation")],
        )
        for entry in datasets
    ]
    client.log_inputs(run, datasets=inputs, models=[LoggedModelInput(model) for model in _models(methods) if model])


def _metrics(evaluation: Evaluation, methods: Sequence[Method]) -> Iterator["Metric"]:
    """Each method's means, of everything and of each dataset; a registered model's carry its id and the dataset's."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    datasets = evaluation.protocol.datasets
    only = datasets[0] if len(datasets) == 1 else None
    for index, (key, model) in enumerate(zip(keys(evaluation.methods), _models(methods), strict=True)):
        mean = evaluation.mean(index)
        for name, value in values(mean):
            yield Metric(f"{key}/{name}", value, now, 0)
        for dataset in datasets:
            scores = mean if dataset is only else evaluation.mean(index, evaluation.of_dataset(dataset.name))
            for name, value in values(scores):
                if dataset is not only:
                    yield Metric(f"{key}/{_key(dataset.name)}/{name}", value, now, 0)
                if model:
                    # What MLflow shows of a model: the same names for every model, and on which data they hold.
                    yield Metric(name, value, now, index, model, dataset.name, dataset.digest)
        if evaluation.top_motion is not None:
            for name, value in values(evaluation.mean(index, evaluation.of_top_motion())):
                yield Metric(f"{key}/top_motion/{name}", value, now, 0)


def keys(names: Iterable[str]) -> list[str]:
    """Names of methods as MLflow allows them in metrics, still unique."""
    found: list[str] = []
    for name in names:
        key, number = _key(name), 1
        while key in found:
            number += 1
            key = f"{_key(name)}_{number}"
        found.append(key)
    return found


def _key(name: str) -> str:
    return _NOT_IN_KEYS.sub("_", name).strip("._-") or "unnamed"


def values(scores: Scores) -> Iterator[tuple[str, float]]:
    """The finite numbers among some scores, by name."""
    for name, value in asdict(scores).items():
        if value is not None and math.isfinite(value):
            yield name, float(value)


def _models(methods: Iterable[Method]) -> list[str | None]:
    registered = [method.registered if isinstance(method, Trained) else None for method in methods]
    return [None if version is None else version.model_id for version in registered]


def _log_files(client: "MlflowClient", run: str, files: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="mana_dist-evaluation-") as folder:
        for uri in files:
            path = os.path.join(folder, uri.rpartition("/")[2])
            storage.write_bytes(path, storage.read_bytes(uri))
        client.log_artifacts(run, folder)


def _source_type(uri: str) -> str:
    if storage.is_web(uri):
        return "http"
    return uri.partition("://")[0] if storage.is_remote(uri) else "local"


def _told(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
