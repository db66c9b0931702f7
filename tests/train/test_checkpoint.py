"""A training's state on disk."""

import json
from pathlib import Path

import pytest
import torch

from mana_dist import model_folder
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import ModelConfig
from mana_dist.train import checkpoint
from mana_dist.train.checkpoint import TrainState
from mana_dist.train.engine import initial_weights

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, memory_slots=4))


def state(*, moments: bool = True) -> TrainState:
    weights = initial_weights(CONFIG.model, 0)
    adam = {f"exp_avg.{name}": torch.randn_like(tensor) for name, tensor in weights.items()} if moments else {}
    return TrainState(7, weights, adam, losses=(0.1, 1 / 3))


@pytest.mark.parametrize("moments", [True, False])
def test_comes_back_to_the_bit(tmp_path: Path, moments: bool) -> None:
    written = state(moments=moments)
    checkpoint.save(str(tmp_path), written, CONFIG)
    read = checkpoint.load(str(tmp_path))
    assert (read.step, read.losses) == (7, (0.1, 1 / 3))
    for before, after in ((written.weights, read.weights), (written.moments, read.moments)):
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_is_a_model_folder(tmp_path: Path) -> None:
    written = state()
    checkpoint.save(str(tmp_path), written, CONFIG)
    model, config = model_folder.load(str(tmp_path))
    assert config == CONFIG
    assert all(torch.equal(tensor, written.weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint.save(str(tmp_path), state(), CONFIG)
    file = tmp_path / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.load(str(tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    checkpoint.save(str(tmp_path), state(), CONFIG)
    progress = json.loads((tmp_path / "progress.json").read_text())
    (tmp_path / "progress.json").write_text(json.dumps(progress | {"format": 99}))
    with pytest.raises(UserError, match="newer mana_dist"):
        checkpoint.load(str(tmp_path))
