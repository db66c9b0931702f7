"""A training's state on disk: free of the number of workers, the ZeRO stage and the precision.

A checkpoint folder holds ``model.safetensors`` and ``config.yaml`` (so it is a model that can be evaluated and used
to upscale), ``optimizer.safetensors`` (Adam's moments, in the middle of a stage) and ``progress.json``. The position in
the data needs no more than the step: see :mod:`mana_dist.data.order`. Loading runs no code from the files.
"""

import json
import os
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mana_dist import model_folder
from mana_dist.config import Config
from mana_dist.errors import UserError

OPTIMIZER_FILE = "optimizer.safetensors"
PROGRESS_FILE = "progress.json"
FORMAT = 1


@dataclass(frozen=True)
class TrainState:
    """Everything that a run needs to go on.

    Attributes:
        step: global optimizer steps done.
        weights: all parameters by name, fp32.
        moments: Adam's moments as ``<moment>.<parameter>``; empty at the start of a stage.
        losses: of the steps since the checkpoint before, oldest first.
    """

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    losses: tuple[float, ...] = ()


def save(folder: str, state: TrainState, config: Config) -> None:
    """Write ``state`` into the existing local folder ``folder``."""
    model_folder.save(folder, state.weights, config)
    if state.moments:
        save_file(state.moments, os.path.join(folder, OPTIMIZER_FILE))
    with open(os.path.join(folder, PROGRESS_FILE), "w", encoding="utf-8") as stream:
        progress = {"format": FORMAT, "step": state.step, "moments": bool(state.moments), "losses": state.losses}
        json.dump(progress, stream)


def load(folder: str) -> TrainState:
    """The state in the local folder ``folder``.

    Raises:
        UserError: a file is missing or damaged, or of a newer format.
    """
    try:
        with open(os.path.join(folder, PROGRESS_FILE), encoding="utf-8") as stream:
            progress = json.load(stream)
        if progress["format"] > FORMAT:
            raise UserError(f"checkpoint {folder} was written by a newer mana_dist (format {progress['format']})")
        weights = load_file(os.path.join(folder, model_folder.WEIGHTS_FILE))
        moments = load_file(os.path.join(folder, OPTIMIZER_FILE)) if progress["moments"] else {}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"checkpoint {folder} is damaged ({error}); start anew under another run.name") from error
    return TrainState(progress["step"], weights, moments, tuple(progress["losses"]))
