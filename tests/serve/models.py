"""A tiny model for the tests of serving."""

from pathlib import Path

import mlflow
import numpy as np
import torch

from mana_dist.config import Config, MlflowConfig
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.inference import Frames
from mana_dist.registry import model_folder, versions
from mana_dist.registry.tracking_uri import artifact_location

CONFIG = Config(
    model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4),
    mlflow=MlflowConfig(registered_model="tiny-x4"),
)


def tiny_model() -> Mana:
    """Whose attention is not zero, as it is at the start of a training."""
    torch.manual_seed(0)
    model = Mana(CONFIG.model).eval()
    torch.nn.init.normal_(model.attention.project.weight)
    return model


def register(folder: Path, alias: str = "champion") -> str:
    """Register the tiny model in a database of its own in ``folder``; its tracking URI."""
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    model_folder.save(str(folder / "model"), tiny_model().state_dict(), CONFIG)
    client = mlflow.MlflowClient(tracking_uri)
    experiment = client.create_experiment("mana", artifact_location=artifact_location(tracking_uri))
    run_id = client.create_run(experiment).info.run_id
    version = versions.log_and_register(str(folder / "model"), CONFIG, run_id, tracking_uri)
    versions.move_alias(version, alias, tracking_uri, {})
    return tracking_uri


def window(height: int = 12, width: int = 10, seed: int = 0) -> Frames:
    """(3, height, width, 3) uint8 of random values."""
    return np.random.default_rng(seed).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
