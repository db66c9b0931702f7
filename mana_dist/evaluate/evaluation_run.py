"""An evaluation as an MLflow run: the protocol, the numbers, the report, the models and the datasets.

A run is logged only where a tracking server is named, and is made once the numbers are there.
"""

import contextlib
import hashlib
import math
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mana_dist import storage
from mana_dist.errors import UserError, one_line
from mana_dist.evaluate.methods import Method, Trained
from mana_dist.evaluate.promote import Promotion
from mana_dist.evaluate.protocol import DatasetProtocol
from mana_dist.evaluate.results import Evaluation, Scores
from mana_dist.registry.inputs import dataset_input
from mana_dist.registry.tracking_uri import experiment_id, failures, quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

LONGEST_PARAMETER = 6000  # characters; MLflow's bound
_LONGEST_TAG = 5000  # characters; older servers' bound
_METRICS_AT_ONCE = 1000  # MLflow's bound
_LONGEST_KEY = 100  # characters of a method's or a dataset's; both and a metric's name fit into MLflow's 250
_TOP_MOTION = "top_motion"
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Tracking:
    """The experiment that the run is logged to.

    Attributes:
        uri: of the tracking server or database.
        experiment: its name.
    """

    uri: str
    experiment: str

    def check(self) -> None:
        """Find or make the experiment, so that a fault of the server is reported before any work.

        Raises:
            UserError: the server cannot be used.
        """
        quiet_mlflow()
        from mlflow import MlflowClient

        try:
            experiment_id(MlflowClient(self.uri), self.experiment)
        except failures() as error:
            raise UserError(f"--tracking-uri {self.uri} cannot be used ({error}); start it or name another") from error

    def log(
        self, evaluation: Evaluation, methods: Sequence[Method], files: Sequence[str], promotion: Promotion | None
    ) -> str:
        """Log an evaluation.

        Args:
            evaluation: what was found.
            methods: of the evaluation, in its order.
            files: URIs of its files, the numbers first.
            promotion: the decision on an alias, if there was one.

        Returns:
            The run's id.

        Raises:
            UserError: the server or its store of artifacts cannot be used; the run, if it was made, is FAILED then.
        """
        quiet_mlflow()
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        tags = {"mana_dist.command": "evaluate", "mana_dist.methods": ", ".join(evaluation.methods)}
        if promotion is not None:
            tags |= {"mana_dist.promoted": str(promotion.promoted).lower(), "mana_dist.promotion": str(promotion)}
        protocol = evaluation.protocol
        parameters = protocol.entries()
        try:
            client = MlflowClient(self.uri)
            run = client.create_run(experiment_id(client, self.experiment), run_name="evaluation").info.run_id
            with _terminated(client, run):
                client.log_batch(
                    run,
                    params=[Param(key, _as_text(value)[:LONGEST_PARAMETER]) for key, value in parameters.items()],
                    tags=[RunTag(key, value[:_LONGEST_TAG]) for key, value in tags.items()],
                )
                _log_inputs(client, run, protocol.datasets, methods)
                metrics = list(_metrics(evaluation, methods))
                for start in range(0, len(metrics), _METRICS_AT_ONCE):
                    client.log_batch(run, metrics=metrics[start : start + _METRICS_AT_ONCE])
                log_files(client, run, files)
        except failures() as error:
            raise UserError(
                f"--tracking-uri {self.uri}: the evaluation is done, its numbers are in {files[0]}, but it could not "
                f"be logged ({error})"
            ) from error
        return str(run)


@contextlib.contextmanager
def _terminated(client: "MlflowClient", run: str) -> Iterator[None]:
    """Set the run to FINISHED after this context, to FAILED if it was left with an exception."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong with the server may go wrong again
            client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)


def _log_inputs(
    client: "MlflowClient", run: str, datasets: Iterable[DatasetProtocol], methods: Iterable[Method]
) -> None:
    from mlflow.entities import LoggedModelInput

    inputs = [
        dataset_input(
            entry.name,
            entry.digest,
            entry.uri,
            {"clips": entry.clips, "layout": entry.layout, "lr": entry.lr},
            "evaluation",
        )
        for entry in datasets
    ]
    client.log_inputs(run, datasets=inputs, models=[LoggedModelInput(model) for model in _models(methods) if model])


def _metrics(evaluation: Evaluation, methods: Sequence[Method]) -> Iterator["Metric"]:
    """Yield each method's means over all clips and each dataset; those of a registered model are linked to it."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    datasets = evaluation.protocol.datasets
    only = datasets[0] if len(datasets) == 1 else None
    of_datasets = dict(zip(datasets, keys([entry.name for entry in datasets], taken=[_TOP_MOTION]), strict=True))
    for index, (key, model) in enumerate(zip(keys(evaluation.methods), _models(methods), strict=True)):
        mean = evaluation.mean(index)
        for name, value in values(mean):
            yield Metric(f"{key}/{name}", value, now, 0)
        for dataset in datasets:
            scores = mean if dataset is only else evaluation.mean(index, evaluation.of_dataset(dataset.name))
            for name, value in values(scores):
                if dataset is not only:
                    yield Metric(f"{key}/{of_datasets[dataset]}/{name}", value, now, 0)
                if model:
                    # What MLflow shows of a model: the same names for every model, and on which data they hold.
                    yield Metric(name, value, now, index, model, dataset.name, dataset.digest)
        if evaluation.top_motion is not None:
            for name, value in values(evaluation.mean(index, evaluation.of_top_motion())):
                yield Metric(f"{key}/{_TOP_MOTION}/{name}", value, now, 0)


def keys(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return names of methods or datasets as MLflow allows them in metrics, still unique.

    Args:
        names: any; the end of a long one is replaced by a digest.
        taken: keys that mean something else.
    """
    used = set(taken)
    found: list[str] = []
    for name in names:
        key, number = _key(name), 1
        while key in used:
            number += 1
            key = f"{_key(name)}_{number}"
        used.add(key)
        found.append(key)
    return found


def _key(name: str) -> str:
    key = _NOT_IN_KEYS.sub("_", name).strip("._-") or "unnamed"
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    return f"{key[: _LONGEST_KEY - len(digest) - 1]}_{digest}"


def values(scores: Scores) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers among some scores, with their names."""
    for name, value in scores.plain().items():
        if value is not None and math.isfinite(value):
            yield name, float(value)


def _models(methods: Iterable[Method]) -> list[str | None]:
    registered = [method.registered if isinstance(method, Trained) else None for method in methods]
    return [None if version is None else version.model_id for version in registered]


def log_files(client: "MlflowClient", run: str, files: Iterable[str]) -> None:
    """Log files, by URI, as a run's artifacts.

    Raises:
        OSError: a file cannot be read, or the store of artifacts refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="mana_dist-artifacts-") as folder:
        for uri in files:
            path = os.path.join(folder, uri.rpartition("/")[2])
            storage.write_bytes(path, storage.read_bytes(uri))
        try:
            client.log_artifacts(run, folder)
        except Exception as error:  # each store's client has exceptions of its own: botocore's, for one
            raise OSError(f"its artifacts were not taken: {one_line(error)}") from error


def _as_text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
