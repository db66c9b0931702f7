"""Versions of models in the MLflow registry: found, tagged, and registered as pyfunc models.

The functions raise a UserError if the registry refuses or cannot be reached.
"""

import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import mana_dist
from mana_dist.config import Config, flatten, to_mapping
from mana_dist.errors import UserError, one_line
from mana_dist.published_keys import shared
from mana_dist.registry import description, model_folder, pretrained
from mana_dist.registry.tracking_uri import failures, quiet_mlflow, sqlite_file, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset
    from mlflow.entities.model_registry import ModelVersion

SERVING_PACKAGES = ("torch", "numpy", "safetensors", "pyyaml", "pillow")
"""Packages that :mod:`mana_dist.registry.pyfunc` imports, beside MLflow."""
_NAME = re.compile(
    r"models:/(?P<model>[^/@]+)(?:/(?:(?P<version>[0-9]+)|(?P<latest>(?i:latest))|(?P<stage>[^/@]+))|@(?P<alias>[^/@]+))"
)
_LOGGED_MODEL = re.compile(r"models:/(m-\w+)")
_DIGEST = "sha256"  # name of the LoggedModel's parameter with the digest of model.safetensors
_NOT_IN_LOGGED_MODELS = re.compile(r"""[/:.%"']""")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_MAX_TAG = 5000  # characters; older servers' limit
_EXAMPLE_SIZE = (8, 8)  # of the black frames in the input example


@dataclass(frozen=True)
class Results:
    """How good a finished model was on held-out data.

    Attributes:
        metrics: by the names of an evaluation.
        step: global steps that the model was trained for.
        dataset: the held-out data.
        measured_on: the same in words, for the description.
    """

    metrics: Mapping[str, float]
    step: int = 0
    dataset: "Dataset | None" = None
    measured_on: str = "the run's validation data"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    model: str  # the registered model's name
    version: str  # its version
    model_id: str | None = None  # id of MLflow's LoggedModel, if it has one

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``, which always names the same weights."""
        return f"models:/{self.model}/{self.version}"


def resolve(name: str, tracking_uri: str) -> Registered | None:
    """Return the version that ``models:/NAME/VERSION``, ``/latest`` or ``@ALIAS`` names now; None if there is none.

    Raises:
        UserError: a name that ends in one of MLflow's stages, or the registry cannot be reached.
    """
    match = _NAME.fullmatch(name)
    database = sqlite_file(tracking_uri)
    # MLflow would make an empty database here.
    if match is None or (database is not None and not os.path.isfile(database)):
        return None
    quiet_mlflow()
    from mlflow import MlflowClient

    if match["stage"]:
        raise UserError(f"{name}: stages are not read; write models:/{match['model']}/VERSION, or @ALIAS")
    try:
        found = _version(MlflowClient(tracking_uri), match)
    except failures() as error:
        if getattr(error, "error_code", "") in _ABSENT:
            return None
        raise UserError(f"{name}: the MLflow registry at {tracking_uri} cannot be used ({error})") from error
    if found is None:
        return None
    # MLflow on a database leaves the version's model_id empty; its source contains it.
    logged = _LOGGED_MODEL.fullmatch(found.source or "")
    return Registered(match["model"], str(found.version), found.model_id or (logged[1] if logged else None))


def _version(client: "MlflowClient", name: re.Match[str]) -> "ModelVersion | None":
    if name["alias"]:
        return client.get_model_version_by_alias(name["model"], name["alias"])
    if name["version"]:
        return client.get_model_version(name["model"], name["version"])
    newest = client.search_model_versions(f"name='{name['model']}'", 1, order_by=["version_number DESC"])
    return newest[0] if newest else None


def move_alias(registered: Registered, alias: str, tracking_uri: str, tags: Mapping[str, str]) -> None:
    """Point an alias at a version, and tag that version."""
    set_tags(registered, tracking_uri, tags)
    with _registry(f"{registered.uri}: cannot become @{alias}", tracking_uri) as client:
        client.set_registered_model_alias(registered.model, alias, registered.version)


def set_tags(registered: Registered, tracking_uri: str, tags: Mapping[str, str]) -> None:
    """Tag a version."""
    with _registry(f"{registered.uri}: cannot be tagged", tracking_uri) as client:
        for key, value in tags.items():
            client.set_model_version_tag(registered.model, registered.version, key, value[:_MAX_TAG])


def tag(registered: Registered, key: str, tracking_uri: str) -> str | None:
    """Return a tag of a version; None if it has none of this name."""
    with _registry(f"{registered.uri}: cannot be looked up", tracking_uri) as client:
        found: dict[str, str] = client.get_model_version(registered.model, registered.version).tags
    return found.get(key)


@contextmanager
def _registry(what: str, tracking_uri: str) -> Iterator["MlflowClient"]:
    """Give a client whose failures become a UserError that begins with ``what``."""
    quiet_mlflow()
    from mlflow import MlflowClient

    try:
        yield MlflowClient(tracking_uri)
    except failures() as error:
        raise UserError(f"{what} at {tracking_uri} ({one_line(error)})") from error


def log_and_register(
    folder: str, config: Config, run_id: str, tracking_uri: str, results: Results | None = None
) -> Registered:
    """Log a model folder as a LoggedModel of a run and register it, unless this run has registered these weights.

    ``mlflow.pyfunc.load_model("models:/NAME/VERSION")`` then gives a model whose ``predict`` turns (T, H, W, 3) uint8
    frames into the (sH, sW, 3) uint8 super-resolved centre frame, also if mana_dist is not installed; with
    ``params={"answer": "png"}`` into a PNG file in base64.

    Args:
        folder: URI of the model folder, or of a checkpoint folder, which also has the model's two files.
        config: names the registered model; its public part becomes the LoggedModel's parameters.
        run_id: the training's run, whose status does not change.
        tracking_uri: of the run and the registry.
        results: of the model; they are shown with it, and in the version's description.

    Raises:
        UserError: ``folder`` is no model folder, or the registry or its store of artifacts cannot be used.
    """
    name = str(config.registered_model)
    with (
        _registry(f"model {folder}: cannot be registered as {name}", tracking_uri) as client,
        tempfile.TemporaryDirectory(prefix="mana_dist-register-") as temporary,
    ):
        local = os.path.join(temporary, "model")
        model_folder.copy(folder, local)
        params = {key: str(value) for key, value in flatten(shared(to_mapping(config))).items()}
        params[_DIGEST] = model_folder.digest(local)
        # An attempt that was killed may have registered it, and may not have described it.
        registered = _version_of(client, name, run_id, params[_DIGEST])
        try:
            if registered is None:
                with tracking(tracking_uri):
                    registered = _register(name, local, config.model.frames, params, run_id)
            if not client.get_model_version(name, registered.version).description:
                _describe(client, registered, config, run_id, results)
        except Exception as error:  # each store's client has exceptions of its own: botocore's, for one
            raise OSError(one_line(error)) from error
    return registered


def _describe(
    client: "MlflowClient", registered: Registered, config: Config, run_id: str, results: Results | None
) -> None:
    """Give a new version its description, and its LoggedModel the results."""
    from mlflow.entities import Metric

    results = results or Results({})
    now, dataset = int(time.time() * 1000), results.dataset
    on = (dataset.name, dataset.digest) if dataset else (None, None)
    metrics = [Metric(*point, now, results.step, registered.model_id, *on) for point in results.metrics.items()]
    client.log_batch(run_id, metrics=metrics)
    text = description.describe(config, registered.uri, results.metrics, results.measured_on)
    client.update_model_version(registered.model, registered.version, text)


def _version_of(client: "MlflowClient", name: str, run_id: str, sha256: str) -> Registered | None:
    """Return the version that a run registered with these weights; None if there is none."""
    for found in client.search_model_versions(f"run_id='{run_id}'"):
        logged = _LOGGED_MODEL.fullmatch(found.source or "")
        if found.name == name and logged and client.get_logged_model(logged[1]).params.get(_DIGEST) == sha256:
            return Registered(name, str(found.version), logged[1])
    return None


def _register(name: str, local: str, frames: int, params: Mapping[str, str], run_id: str) -> Registered:
    import mlflow
    import numpy as np

    with _run(run_id), redirect_stderr(io.StringIO()):  # MLflow prints successes there; failures are exceptions
        info = mlflow.pyfunc.log_model(
            name=_NOT_IN_LOGGED_MODELS.sub("-", name),
            python_model=os.path.join(os.path.dirname(__file__), "pyfunc.py"),
            artifacts={"model": local},
            code_paths=[_code(os.path.dirname(local))],
            signature=_signature(),
            model_config={"device": "auto", "precision": "auto"},
            input_example=np.zeros((frames, *_EXAMPLE_SIZE, 3), np.uint8),
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", *SERVING_PACKAGES)],
            registered_model_name=name,
            params=dict(params),
        )
    return Registered(name, str(info.registered_model_version), info.model_id)


def _code(folder: str) -> str:
    """Copy the package into ``folder``, but for the weights that come with it: a model brings its own."""
    left_out = shutil.ignore_patterns("__pycache__", pretrained.FOLDER)
    package = os.path.dirname(mana_dist.__file__)
    return shutil.copytree(package, os.path.join(folder, os.path.basename(package)), ignore=left_out)


@contextmanager
def _run(run_id: str) -> Iterator[None]:
    """Make the run MLflow's active one, from which a LoggedModel takes its experiment and source."""
    import mlflow

    client = mlflow.MlflowClient()
    active = mlflow.active_run()
    status = client.get_run(run_id).info.status
    with nullcontext() if active and active.info.run_id == run_id else mlflow.start_run(run_id=run_id, nested=True):
        yield
    client.update_run(run_id, status=status)  # start_run has marked the run as finished


def _signature() -> object:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    pixel = np.dtype(np.uint8)
    return ModelSignature(
        inputs=Schema([TensorSpec(pixel, (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(pixel, (-1, -1, 3))]),
        params=ParamSchema([ParamSpec("answer", DataType.string, "array")]),
    )
