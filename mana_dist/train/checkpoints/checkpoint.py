"""A training's state in one folder: free of the number of workers, the ZeRO stage and the precision.

A checkpoint folder holds ``model.safetensors`` and ``config.yaml`` (so it is a model that can be evaluated and used
to upscale), ``optimizer.safetensors`` (Adam's moments, but not where another stage begins) and ``progress.json``. With
``run.ema`` the model is the average, and ``training.safetensors`` has the weights that training goes on from.
``progress.json`` is written last and holds size and SHA-256 of the others, and a SHA-256 of its own: a folder with it
is whole. Position in the data and randomness depend on the step alone (see :mod:`mana_dist.data.order`). Loading runs
no code from the files.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.registry import model_folder
from mana_dist.storage.retry import persistently

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINING_FILE = "training.safetensors"
PROGRESS_FILE = "progress.json"
FORMAT = 3
AVERAGED_FORMAT = 4  # with TRAINING_FILE, which programs that know of FORMAT alone would overlook


class DamagedError(Exception):
    """A checkpoint cannot be used; the message is one line that says why."""


class UnfinishedError(DamagedError):
    """A checkpoint's last file was never written: its writer was killed, or is still at work."""


@dataclass(frozen=True)
class TrainState:
    """Everything that a run needs to go on.

    Attributes:
        step: global optimizer steps done.
        weights: all parameters by name, fp32.
        moments: Adam's moments as ``<moment>.<parameter>``; empty at a stage's start.
        losses: the last steps' losses, oldest first, as many as a driver might have failed to log.
        average: the moving average of all parameters by name, fp32; empty without ``run.ema``.
    """

    step: int
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    losses: tuple[float, ...] = ()
    average: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> Mapping[str, Tensor]:
        """The weights to validate and to publish: the average, where there is one."""
        return self.average or self.weights


def write(folder: str, state: TrainState, config: Config, check: Callable[[], None] = lambda: None) -> None:
    """Write ``state`` to the folder ``folder`` (a URI), over whatever is there.

    Args:
        folder: the checkpoint's folder.
        state: all tensors on the CPU.
        config: the configuration that it was trained with.
        check: called before each change of the folder; what it raises leaves the rest undone.

    Raises:
        OSError: the storage does not take it; the folder then is not whole, and reads as unfinished.
    """
    files = {
        model_folder.CONFIG_FILE: model_folder.describe(config),
        model_folder.WEIGHTS_FILE: to_safetensors(dict(state.model)),
    }
    if state.average:
        files[TRAINING_FILE] = to_safetensors(dict(state.weights))
    if state.moments:
        files[OPTIMIZER_FILE] = to_safetensors(dict(state.moments))
    progress = {
        "format": AVERAGED_FORMAT if state.average else FORMAT,
        "step": state.step,
        "losses": state.losses,
        "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in files.items()},
    }
    progress["sha256"] = _seal(progress)
    check()
    remove(folder)
    for name, data in [*files.items(), (PROGRESS_FILE, json.dumps(progress).encode())]:
        check()
        persistently(storage.write_bytes, storage.join(folder, name), data)


def read(folder: str) -> TrainState:
    """Return the state in the folder ``folder`` (a URI), with every byte checked.

    Raises:
        DamagedError: a file is missing, cut off or changed, or an older version of this program wrote it.
        UserError: a newer version of this program wrote it.
        OSError: the storage cannot be reached.
    """
    progress = _read_progress(folder)
    try:
        if progress["format"] > AVERAGED_FORMAT:
            raise UserError(f"checkpoint {folder} was written by a newer mana_dist (format {progress['format']})")
        if progress["format"] < FORMAT:
            raise DamagedError(f"{PROGRESS_FILE} is of format {progress['format']}; this mana_dist reads {FORMAT}")
        if progress.pop("sha256") != _seal(progress):
            raise DamagedError(f"{PROGRESS_FILE} has changed: its SHA-256 is not the one it was written with")
        files = {name: _read_checked(folder, name, record) for name, record in progress["files"].items()}
        tensors = {name: parse_safetensors(files[name]) for name in files if name != model_folder.CONFIG_FILE}
        model = tensors[model_folder.WEIGHTS_FILE]
        weights, average = (tensors[TRAINING_FILE], model) if TRAINING_FILE in tensors else (model, {})
        losses = tuple(progress["losses"])
        return TrainState(progress["step"], weights, tensors.get(OPTIMIZER_FILE, {}), losses, average)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{PROGRESS_FILE} is not what it should be") from error
    except SafetensorError as error:
        raise DamagedError(f"its tensors cannot be read: {error}") from error


def remove(folder: str) -> None:
    """Delete the checkpoint ``folder``, if there is one; if that fails halfway, it reads as unfinished."""
    filesystem, path = storage.filesystem(folder)

    for delete, what in ((filesystem.delete_file, f"{path}/{PROGRESS_FILE}"), (filesystem.delete_dir, path)):
        # A folder in the file's place goes with the rest.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            persistently(delete, what)


def _read_progress(folder: str) -> dict[str, Any]:
    try:
        text = persistently(storage.read_bytes, storage.join(folder, PROGRESS_FILE))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnfinishedError(f"{PROGRESS_FILE}, which is written last, is missing") from error
    except IsADirectoryError as error:
        raise DamagedError(f"{PROGRESS_FILE} is a folder") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{PROGRESS_FILE} is not JSON") from error


def _read_checked(folder: str, name: str, record: Mapping[str, Any]) -> bytes:
    try:
        data = persistently(storage.read_bytes, storage.join(folder, name))
    except FileNotFoundError as error:
        raise DamagedError(f"{name} is missing") from error
    except IsADirectoryError as error:
        raise DamagedError(f"{name} is a folder") from error
    if len(data) != record["bytes"]:
        raise DamagedError(f"{name} has {len(data)} bytes instead of {record['bytes']}")
    if _digest(data) != record["sha256"]:
        raise DamagedError(f"{name} has changed: its SHA-256 is not the one it was written with")
    return data


def _seal(progress: Mapping[str, Any]) -> str:
    """Return the digest of a progress file's content, whatever its spacing."""
    return _digest(json.dumps(progress, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
