"""A training's state in a folder."""

import json
from pathlib import Path

import pytest
import torch

from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import ModelConfig
from mana_dist.model.mana import initial_weights
from mana_dist.registry import model_folder
from mana_dist.train.checkpoints import checkpoint
from mana_dist.train.checkpoints.checkpoint import DamagedError, TrainState, UnfinishedError

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, memory_slots=4))


def state(*, moments: bool = True, average: bool = False) -> TrainState:
    weights = initial_weights(CONFIG.model, 0)
    adam = {f"exp_avg.{name}": torch.randn_like(tensor) for name, tensor in weights.items()} if moments else {}
    averages = {name: tensor / 3 for name, tensor in weights.items()} if average else {}
    return TrainState(7, weights, adam, losses=(0.1, 1 / 3), average=averages)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("moments", [True, False])
def test_comes_back_to_the_bit(tmp_path: Path, moments: bool, average: bool) -> None:
    written = state(moments=moments, average=average)
    checkpoint.write(str(tmp_path), written, CONFIG)
    read = checkpoint.read(str(tmp_path))
    assert (read.step, read.losses) == (7, (0.1, 1 / 3))
    pairs = [(written.weights, read.weights), (written.moments, read.moments), (written.average, read.average)]
    for before, after in pairs:
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("average", [True, False])
def test_is_a_model_folder_of_the_average_if_there_is_one(tmp_path: Path, average: bool) -> None:
    written = state(average=average)
    checkpoint.write(str(tmp_path), written, CONFIG)
    model, config = model_folder.load(str(tmp_path))
    assert config == CONFIG
    expected = written.average if average else written.weights
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    # A program from before there were averages would go on from the model: it must refuse.
    assert json.loads((tmp_path / "progress.json").read_text())["format"] == (4 if average else 3)


def test_takes_the_place_of_whatever_is_there(tmp_path: Path) -> None:
    """Such as what a killed writer left: no file of it may stay and count."""
    checkpoint.write(str(tmp_path), state(), CONFIG)
    (tmp_path / ".model.safetensors.partial-abc").write_bytes(b"half")
    checkpoint.write(str(tmp_path), state(moments=False), CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.safetensors", "progress.json"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_one_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.yaml"])
@pytest.mark.parametrize(
    ("damage", "message"), [(None, "is missing"), (cut, "bytes instead of"), (flip_one_bit, "has changed")]
)
def test_damage_is_named(tmp_path: Path, name: str, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    checkpoint.write(str(tmp_path), state(), CONFIG)
    file = tmp_path / name
    if damage:
        file.write_bytes(damage(file.read_bytes()))
    else:
        file.unlink()
    with pytest.raises(DamagedError, match=f"^{name} .*{message}"):
        checkpoint.read(str(tmp_path))


@pytest.mark.parametrize("text", ["", '{"format": 3', "[]", '{"format": 3, "step": 3}', '{"format": "3"}'])
def test_a_broken_progress_file_is_damage(tmp_path: Path, text: str) -> None:
    checkpoint.write(str(tmp_path), state(), CONFIG)
    (tmp_path / "progress.json").write_text(text)
    with pytest.raises(DamagedError, match=r"progress\.json is not"):
        checkpoint.read(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"step": 8},
        {"step": "x"},
        {"losses": [0.1, 0.3]},
        {"files": {}},
        {"sha256": "0" * 64},
    ],
)
def test_a_changed_progress_file_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    """It names the step to go on from, and which files there are."""
    checkpoint.write(str(tmp_path), state(), CONFIG)
    progress = json.loads((tmp_path / "progress.json").read_text())
    (tmp_path / "progress.json").write_text(json.dumps(progress | change))
    with pytest.raises(DamagedError, match=r"progress\.json has changed: its SHA-256"):
        checkpoint.read(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_folder_in_a_files_place_is_damage_and_makes_way(tmp_path: Path, name: str) -> None:
    checkpoint.write(str(tmp_path), state(), CONFIG)
    (tmp_path / name).unlink()
    (tmp_path / name / "below").mkdir(parents=True)
    with pytest.raises(DamagedError, match=f"{name} is a folder"):
        checkpoint.read(str(tmp_path))
    checkpoint.write(str(tmp_path), state(), CONFIG)
    assert checkpoint.read(str(tmp_path)).step == 7


def test_an_older_format_cannot_be_used(tmp_path: Path) -> None:
    checkpoint.write(str(tmp_path), state(), CONFIG)
    progress = json.loads((tmp_path / "progress.json").read_text())
    (tmp_path / "progress.json").write_text(json.dumps(progress | {"format": 2}))
    with pytest.raises(DamagedError, match=r"progress\.json is of format 2; this mana_dist reads 3"):
        checkpoint.read(str(tmp_path))


def test_without_its_last_file_it_was_never_finished(tmp_path: Path) -> None:
    checkpoint.write(str(tmp_path), state(), CONFIG)
    (tmp_path / "progress.json").unlink()
    with pytest.raises(UnfinishedError, match=r"progress\.json, which is written last, is missing"):
        checkpoint.read(str(tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    checkpoint.write(str(tmp_path), state(), CONFIG)
    progress = json.loads((tmp_path / "progress.json").read_text())
    (tmp_path / "progress.json").write_text(json.dumps(progress | {"format": 99}))
    with pytest.raises(UserError, match="newer mana_dist"):
        checkpoint.read(str(tmp_path))


def test_removing_nothing_is_no_error(tmp_path: Path) -> None:
    checkpoint.remove(str(tmp_path / "nothing"))
