"""A finished model: a folder with ``model.safetensors`` and ``config.yaml``, enough to evaluate and upscale.

Loading runs no code from the files: weights are safetensors, the configuration is plain YAML. The functions raise a
UserError if there is no such model, a file is missing or damaged, or the weights do not fit the configuration.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mana_dist import config as configuration
from mana_dist import model_names, storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.published_keys import shared
from mana_dist.registry import names, pretrained
from mana_dist.registry.tracking_uri import failures, resolve_tracking_uri, sqlite_file, tracking

WEIGHTS_FILE = names.WEIGHTS_FILE
REGISTRY_SCHEME = model_names.REGISTRY_SCHEME
CONFIG_FILE = "config.yaml"


class Loaded(NamedTuple):
    """A model, its configuration, and the SHA-256 of its ``model.safetensors`` (hex)."""

    model: Mana
    config: Config
    sha256: str


def save(folder: str, weights: Mapping[str, Tensor], config: Config) -> None:
    """Write a model folder, the weights last, as fp32; each file appears whole, and other files in the folder stay."""
    tensors = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    storage.write_bytes(storage.join(folder, CONFIG_FILE), describe(config))
    storage.write_bytes(storage.join(folder, WEIGHTS_FILE), to_safetensors(tensors))


def describe(config: Config) -> bytes:
    """Return the content of ``config.yaml``: the model and its training, without anything private to the run."""
    return _public_yaml(configuration.to_mapping(config))


def _public_yaml(values: Mapping[str, Any]) -> bytes:
    text: str = yaml.safe_dump(shared(values), sort_keys=False)
    return text.encode()


def load(model: str, tracking_uri: str | None = None) -> tuple[Mana, Config]:
    """Return a model from a folder or the MLflow registry, on the CPU, fp32, in evaluation mode, and its configuration.

    Args:
        model: the URI of a model or checkpoint folder, ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``, or
            ``pretrained``, the model that comes with the package.
        tracking_uri: of the registry; by default as :func:`mana_dist.registry.tracking_uri.resolve_tracking_uri` says.
    """
    loaded = load_identified(model, tracking_uri)
    return loaded.model, loaded.config


def load_identified(model: str, tracking_uri: str | None = None) -> Loaded:
    """Do as :func:`load`, and return the digest of the weights too."""
    with fetched(model, tracking_uri) as folder:
        text = _read(folder, CONFIG_FILE, model).decode(errors="replace")
        config = configuration.load(text, f"{model}/{CONFIG_FILE}")
        data = _read(folder, WEIGHTS_FILE, model)
        try:
            weights = parse_safetensors(data)
        except SafetensorError as error:
            mend = "copy it again or name another checkpoint"
            raise UserError(f"{model}/{WEIGHTS_FILE} is damaged ({error}); {mend}") from error
    return Loaded(_build(config.model, weights, model), config, hashlib.sha256(data).hexdigest())


@contextmanager
def fetched(model: str, tracking_uri: str | None = None) -> Iterator[str]:
    """Give the URI of a folder with the model's two files while the context is open.

    A registered model is downloaded to a temporary folder.
    """
    if model == model_names.PRETRAINED:
        yield pretrained.folder()
        return
    if model_names.is_folder(model):
        if not _exists(model):
            raise names.no_such_folder(model)
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="mana_dist-model-") as temporary:
        downloaded = _download(model, resolve_tracking_uri(tracking_uri), temporary)
        holding = (path for path, _, files in os.walk(downloaded) if WEIGHTS_FILE in files)
        folder = next(holding, None)
        if folder is None:
            raise UserError(f"model {model}: holds no {WEIGHTS_FILE}; name a model that mana train registered")
        yield folder


def digest(model: str) -> str:
    """Return the SHA-256 (hex) of the weights in the folder ``model``, a URI."""
    return hashlib.sha256(_read(model, WEIGHTS_FILE, model)).hexdigest()


def copy(model: str, folder: str, tracking_uri: str | None = None) -> None:
    """Copy the two files of a model, and nothing else, to another folder, the weights last.

    Takes models as :func:`load` does. Leaves out what is private to the run in a ``config.yaml`` of an older version.
    """
    with fetched(model, tracking_uri) as source:
        text = _read(source, CONFIG_FILE, model).decode(errors="replace")
        values = configuration.yaml_mapping(text, f"{model}/{CONFIG_FILE}")
        storage.write_bytes(storage.join(folder, CONFIG_FILE), _public_yaml(values))
        storage.write_bytes(storage.join(folder, WEIGHTS_FILE), _read(source, WEIGHTS_FILE, model))


def _exists(uri: str) -> bool:
    try:
        return storage.exists(uri)
    except OSError as error:
        raise UserError(f"model {uri}: cannot be reached ({error})") from error


def _read(folder: str, name: str, model: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(folder, name))
    except FileNotFoundError as error:
        raise UserError(
            f"model {model}: {name} is missing; a model folder holds {WEIGHTS_FILE} and {CONFIG_FILE}"
        ) from error
    except OSError as error:
        raise UserError(f"model {model}: {name} cannot be read ({error})") from error


def _download(model: str, tracking_uri: str, folder: str) -> str:
    database = sqlite_file(tracking_uri)
    # MLflow would make an empty database here, which the next look-up would find.
    if database is not None and not os.path.isfile(database):
        raise UserError(
            f"model {model}: there is no MLflow database {database}; "
            "go to the folder of the training, or set --tracking-uri or MLFLOW_TRACKING_URI"
        )
    from mlflow.artifacts import download_artifacts

    try:
        with tracking(tracking_uri):
            path: str = download_artifacts(artifact_uri=model, dst_path=folder)
    except failures() as error:
        raise UserError(f"model {model}: not in the MLflow registry at {tracking_uri} ({error})") from error
    return path


def _build(config: ModelConfig, weights: Mapping[str, Tensor], name: str) -> Mana:
    # The meta device initialises nothing, so the caller's random state does not change.
    with torch.device("meta"):
        model = Mana(config)
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            raise UserError(
                f"model {name}: {WEIGHTS_FILE} does not fit {CONFIG_FILE}: tensor {key} should be "
                f"{expected.get(key, 'absent')} and is {found.get(key, 'absent')}"
            )
    model.load_state_dict({key: tensor.float() for key, tensor in weights.items()}, assign=True)
    return model.eval()
