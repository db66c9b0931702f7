"""What an MLflow run's page says of a training beside its figures: its command, its code and its data."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mana_dist
from mana_dist.arguments import command
from mana_dist.config import Config
from mana_dist.data.manifest import load_manifest
from mana_dist.data.mixture import Dataset, Mixture
from mana_dist.errors import redacted
from mana_dist.progress import count
from mana_dist.registry.inputs import dataset_input
from mana_dist.train.run_record import run_folder
from mana_dist.train.schedule import stages

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_LONGEST_TAG = 5000  # characters; older servers' limit


@dataclass(frozen=True)
class Page:
    """The words and links of a new run.

    Attributes:
        tags: by name; MLflow shows those that begin with ``mlflow.`` in places of their own.
        inputs: the datasets.
    """

    tags: Mapping[str, str]
    inputs: Sequence["DatasetInput"] = ()


def describe(config: Config, mixture: Mixture) -> Page:
    """Return the page of a training that this process begins.

    Args:
        config: the run's.
        mixture: its training data.
    """
    inputs = [_input("training", dataset) for dataset in mixture]
    if config.data.validation_path:
        inputs.append(validation_input(config))
    tags = {
        "mlflow.source.name": command(sys.orig_argv),
        "mlflow.source.type": "JOB" if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else "LOCAL",
        "mlflow.note.content": _note(config, mixture),
        "mana_dist.version": mana_dist.__version__,
        **git_tags(os.path.dirname(mana_dist.__file__)),
    }
    return Page({name: value[:_LONGEST_TAG] for name, value in tags.items()}, inputs)


def validation_input(config: Config) -> "DatasetInput":
    """Return the validation dataset of a run that has one."""
    uri = str(config.data.validation_path)
    return _input("validation", Dataset(uri, load_manifest(uri)))


def git_tags(folder: str) -> dict[str, str]:
    """Return the commit that the package in ``folder`` is of, and whether it was changed since.

    Nothing for an installed package, whose version says it, even if its environment lies in a repository.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        described = _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = described.partition("-")
    return {"mlflow.source.git.commit": commit, "mana_dist.git_dirty": str(bool(dirty)).lower()}


def _git(folder: str, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def _input(context: str, dataset: Dataset) -> "DatasetInput":
    kept = ("samples", "clips", "frames", "stride", "patch", "scale", "degradation", "reader")
    profile = {"weight": dataset.weight, **{name: getattr(dataset.manifest, name) for name in kept}}
    name = redacted(dataset.uri).rstrip("/").rpartition("/")[2] or context
    return dataset_input(name, dataset.fingerprint, dataset.uri, profile, context)


def _note(config: Config, mixture: Mixture) -> str:
    model = config.model
    samples = sum(dataset.manifest.samples for dataset in mixture)
    clips = count(sum(dataset.manifest.clips for dataset in mixture), "clip")
    planned = ", ".join(f"stage {stage.number}: {stage.stop - stage.start}" for stage in stages(config))
    return redacted(
        f"Training of an x{model.scale} model (attention `{model.attention}`, {model.channels} channels, windows of "
        f"{model.frames} frames) on {samples:,} samples of {clips}; steps: {planned}.\n\n"
        f"Everything of the run is in `{run_folder(config)}`. If it ended early, the same command with "
        f"`--run.name {config.run.name}` goes on with it."
    )
