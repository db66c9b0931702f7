"""The model in the package: whole, described, found by its name alone. It lies in the repository, so nothing skips."""

import re
from pathlib import Path

import pytest

from mana_dist import config as configuration
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.evaluate.methods import Trained, Wanted, load_methods, source
from mana_dist.model import ModelConfig
from mana_dist.registry import model_folder, names, pretrained
from tests.serve.models import CONFIG, tiny_model

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration of a model in a folder ``pretrained`` of the working folder."""
    monkeypatch.chdir(tmp_path)
    model_folder.save("pretrained", tiny_model().state_dict(), CONFIG)
    return CONFIG


def test_its_card_is_of_these_weights() -> None:
    loaded = model_folder.load_identified("pretrained")
    assert pretrained.card().sha256 == loaded.sha256
    count = sum(weights.numel() for weights in loaded.model.parameters())
    text = (Path(pretrained.folder()) / "card.md").read_text(encoding="utf-8")
    assert f"{count:,} parameters" in text


def test_its_network_is_that_of_the_configuration_in_the_repository() -> None:
    trained = configuration.parse(["--config", str(CONFIGS / "pretrained.yaml")])
    assert model_folder.load("pretrained")[1].model == trained.model
    assert trained.model == ModelConfig(
        channels=32, encoder_blocks=2, decoder_blocks=6, frames=7, window=9, memory_slots=0, attention="phases"
    )


def test_a_fine_tuning_goes_on_with_its_network() -> None:
    finetune = configuration.preset("finetune")
    assert finetune.run.init == "pretrained"
    assert finetune.model == model_folder.load("pretrained")[1].model


def test_its_files_are_few_and_small() -> None:
    files = {path.name: path.stat().st_size for path in Path(pretrained.folder()).iterdir()}
    assert set(files) == {"card.md", "config.yaml", "model.safetensors"}
    assert sum(files.values()) <= 6e6


def test_its_clips_are_counted_and_none_is_share_alike() -> None:
    listed = (CONFIGS / "pretrained_clips.md").read_text(encoding="utf-8").partition("Left out on purpose")[0]
    clips = re.findall(r"^\| (\S+) \| (\S+\.mp4) \| \d+x\d+ \| (\d+) \| [123] \|$", listed, re.MULTILINE)
    assert len(set(clips)) == len(clips) == int(re.findall(r"(\d+) public clips", pretrained.card().trained_for)[0])
    assert f"{sum(int(frames) for _, _, frames in clips):,} frames" in listed
    licences = dict(re.findall(r"^\| (\S+) \| [0-9a-f]{10} \| (.+) \|$", listed, re.MULTILINE))
    assert {repository for repository, _, _ in clips} == set(licences)
    assert not any("SA" in licence or "BoofCV" in repository for repository, licence in licences.items())


def test_a_folder_of_its_name_needs_the_slash(other: Config) -> None:
    assert model_folder.load("./pretrained")[1].model == other.model
    assert model_folder.load("pretrained/")[1].model == other.model
    assert model_folder.load("pretrained")[1].model != other.model
    for name in ("pretrained", "./pretrained"):
        names.check_model_folder(name)


def test_what_is_no_folder_is_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names.check_model_folder("pretrained")
    for look in (names.check_model_folder, model_folder.load):
        with pytest.raises(UserError, match=r"^model pretraind: no such folder; .*, or pretrained$"):
            look("pretraind")


def test_a_copy_is_the_same_model(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    model_folder.copy("pretrained", str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    assert model_folder.load_identified(str(folder)).sha256 == model_folder.load_identified("pretrained").sha256


@pytest.mark.usefixtures("other")
def test_an_evaluation_names_it_alike_on_every_machine() -> None:
    """Where the package lies, and what lies in the working folder, are nobody's business."""
    wanted = Wanted("pretrained"), Wanted("./pretrained")
    found = load_methods(wanted, [], "reflection", None)
    mine, folders = (source(*pair) for pair in zip(wanted, found, strict=True))
    assert isinstance(found[0], Trained)
    assert (mine.name, mine.uri) == ("pretrained", "pretrained")
    assert mine.sha256 == model_folder.digest(pretrained.folder())
    assert folders.uri.endswith("/pretrained")
    assert folders.sha256 != mine.sha256


def test_other_models_are_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("./pretrained", "models:/pretrained/1", "bicubic"):
        pretrained.announce(name)
    assert capsys.readouterr().out == ""
    pretrained.announce("pretrained")
    expected = r"model: pretrained \(version \d+; x4 from bicubic LR, \d+ public clips\); --model for another\n"
    assert re.fullmatch(expected, capsys.readouterr().out)
