"""The model folder's round trip, and every way in which a folder can be wrong."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mana_dist import config as configuration
from mana_dist.config import Config, DataConfig, MlflowConfig, RunConfig, ScheduleConfig, StageConfig
from mana_dist.errors import UserError
from mana_dist.model import Mana, ModelConfig
from mana_dist.registry import model_folder

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4))

PRIVATE = Config(
    model=CONFIG.model,
    schedule=ScheduleConfig(stage1=StageConfig(steps=11, lr=0.5)),
    data=DataConfig(path="/home/ann/samples", validation_path="/home/ann/held", batch_size=5),
    run=RunConfig(name="secret-run", storage="/home/ann/runs", seed=3),
    mlflow=MlflowConfig(tracking_uri="http://ann:s3cret@host:5000", experiment="ann"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model"
    model_folder.save(str(path), Mana(CONFIG.model).state_dict(), CONFIG)
    return path


def test_round_trip_is_exact_and_leaves_the_random_state_alone(folder: Path) -> None:
    torch.manual_seed(0)
    expected = Mana(CONFIG.model)
    before = torch.get_rng_state()
    model, config = model_folder.load(str(folder))
    assert torch.equal(torch.get_rng_state(), before)
    assert config == CONFIG
    assert not model.training
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in model.parameters())
    assert model.state_dict().keys() == expected.state_dict().keys()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_weights_are_told_apart_by_their_files_digest(folder: Path, tmp_path: Path) -> None:
    found = model_folder.load_identified(str(folder))
    assert found.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert found.config == CONFIG
    model_folder.save(
        str(tmp_path / "other"), {key: value + 1 for key, value in found.model.state_dict().items()}, CONFIG
    )
    assert model_folder.load_identified(str(tmp_path / "other")).sha256 != found.sha256


@pytest.mark.parametrize("slots", [4, 0])
@pytest.mark.parametrize("attention", ["one_hot", "softmax_window", "dense"])
def test_the_variants_of_the_network_come_back_with_equal_output(tmp_path: Path, attention: str, slots: int) -> None:
    torch.manual_seed(0)
    model = Mana(dataclasses.replace(CONFIG.model, attention=attention, memory_slots=slots))
    torch.nn.init.normal_(model.attention.project.weight)
    model_folder.save(str(tmp_path), model.state_dict(), Config(model=model.config))
    loaded, config = model_folder.load(str(tmp_path))
    assert (config.model.attention, config.model.memory_slots) == (attention, slots)
    frames = torch.rand(1, 3, 3, 7, 6)
    with torch.no_grad():
        assert torch.equal(loaded(frames), model(frames))


def test_a_folder_from_before_there_was_a_choice_holds_a_one_hot_model(folder: Path) -> None:
    file = folder / "config.yaml"
    lines = [line for line in file.read_text().splitlines() if "attention" not in line]
    assert len(lines) == len(file.read_text().splitlines()) - 1
    file.write_text("\n".join(lines))
    model, config = model_folder.load(str(folder))
    assert config == CONFIG
    assert model.config.attention == "one_hot"


def test_files_are_plain_safetensors_fp32_and_yaml(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
    assert configuration.load((folder / "config.yaml").read_text(), "test") == CONFIG


def test_bf16_weights_are_stored_as_fp32(tmp_path: Path) -> None:
    state = Mana(CONFIG.model).to(torch.bfloat16).state_dict()
    model_folder.save(str(tmp_path), state, CONFIG)
    model, _ = model_folder.load(f"file://{tmp_path}")
    for key, tensor in state.items():
        assert torch.equal(model.state_dict()[key], tensor.float()), key


def test_copy_takes_the_models_two_files_alone(folder: Path, tmp_path: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"large")
    model_folder.copy(str(folder), str(tmp_path / "copy"))
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["config.yaml", "model.safetensors"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        model_folder.copy(str(folder), str(tmp_path / "second"))
    assert "model.safetensors" not in {path.name for path in (tmp_path / "second").iterdir()}


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; name one that holds model\.safetensors"):
        model_folder.load(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        model_folder.load(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        model_folder.load(str(folder))


def test_pickled_weights_are_refused_unread(folder: Path) -> None:
    torch.save(Mana(CONFIG.model).state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        model_folder.load(str(folder))


def test_weights_of_another_width(folder: Path) -> None:
    other = ModelConfig(channels=16, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4)
    save_file(Mana(other).state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match=r"does not fit config\.yaml: tensor stem\.weight should be \(8, 3, 3, 3\)"):
        model_folder.load(str(folder))


@pytest.mark.parametrize("blocks", [0, 2])
def test_weights_with_tensors_missing_or_too_many(folder: Path, blocks: int) -> None:
    other = ModelConfig(channels=8, encoder_blocks=blocks, decoder_blocks=1, frames=3, window=3, memory_slots=4)
    save_file(Mana(other).state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match="absent"):
        model_folder.load(str(folder))


@pytest.mark.parametrize(
    "text",
    [
        "model: [",
        "model: {chanels: 8}",
        "model: {window: 4}",
        "model: {attention: none}",
        "!!python/object:os.system {}",
    ],
)
def test_broken_configuration(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        model_folder.load(str(folder))


def test_looking_for_a_registry_that_is_not_there_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no MLflow database"):
        model_folder.load("models:/mana-x4@candidate", f"sqlite:///{tmp_path}/mlflow.db")
    assert not list(tmp_path.iterdir())


def test_what_is_private_to_the_run_stays_with_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model_folder.save(str(path), Mana(CONFIG.model).state_dict(), PRIVATE)
    text = (path / "config.yaml").read_text()
    for private in ("/home/ann", "s3cret", "secret-run", "mlflow"):
        assert private not in text, text
    _, config = model_folder.load(str(path))
    assert config.model == CONFIG.model
    assert (config.schedule, config.run.seed, config.data.batch_size) == (PRIVATE.schedule, 3, 5)


def test_a_folder_of_an_older_version_loads_and_its_copy_holds_nothing_private(folder: Path, tmp_path: Path) -> None:
    (folder / "config.yaml").write_text(configuration.to_yaml(PRIVATE))
    assert model_folder.load(str(folder))[1] == PRIVATE
    model_folder.copy(str(folder), str(tmp_path / "copy"))
    text = (tmp_path / "copy" / "config.yaml").read_text()
    assert "/home/ann" not in text
    assert "s3cret" not in text
    assert model_folder.load(str(tmp_path / "copy"))[1].run.seed == 3


def test_a_key_that_nobody_has_called_shareable_is_private(folder: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["run"]["token"] = values["data"]["token"] = values["schedule"]["token"] = "s3cret"
    values["later"] = {"token": "s3cret"}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    model_folder.copy(str(folder), str(tmp_path / "copy"))
    assert "s3cret" not in (tmp_path / "copy" / "config.yaml").read_text()
