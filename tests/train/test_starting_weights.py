"""A run that begins with a model's weights (``run.init``)."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model import Mana
from mana_dist.model.mana import initial_weights
from mana_dist.registry import model_folder
from mana_dist.train import ray_fit, run_record, run_training, starting_weights
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.schedule import stages
from tests.train import test_run_training

config = test_run_training.config  # a run that is trained in no time


def model(folder: Path, config: Config, **changes: Any) -> tuple[str, dict[str, Tensor]]:
    """A model of another seed, every weight one higher."""
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
    weights = {name: tensor + 1 for name, tensor in initial_weights(other.model, 5).items()}
    model_folder.save(str(folder), weights, other)
    return str(folder), weights


def begins_with(config: Config, init: str | None) -> Config:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, init=init))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[TrainState | None]:
    """What the workers would find at each start; they then end the run."""
    found: list[TrainState | None] = []

    def fit(config: Config, *_: object) -> int:
        state = Checkpoints(config).newest().state
        found.append(state)
        last = stages(config)[-1].stop
        Checkpoints(config).write(TrainState(last, initial_weights(config.model, 1), {}))
        return last

    monkeypatch.setattr(ray_fit, "fit", fit)
    return found


def killed(*_: object) -> int:
    raise KeyboardInterrupt


def test_all_weights_of_the_same_network_go_in(
    config: Config, tmp_path: Path, begun: list[TrainState | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder, weights = model(tmp_path / "first", config)
    run_training.train(begins_with(config, folder))
    (state,) = begun
    assert state is not None
    assert (state.step, dict(state.moments)) == (0, {})
    assert state.weights.keys() == weights.keys()
    assert all(torch.equal(state.weights[name], tensor) for name, tensor in weights.items())
    digest = model_folder.digest(folder)
    record = run_record.load(config)
    assert record is not None
    assert record.init == digest
    assert f"starting from {folder} (SHA-256 {digest[:12]}): {len(weights)} of {len(weights)} tensors" in caplog.text
    assert folder not in Path(config.run.storage, "one", "model", "config.yaml").read_text()


def test_what_does_not_fit_starts_anew_and_is_listed_in_one_line(
    config: Config, tmp_path: Path, begun: list[TrainState | None], caplog: pytest.LogCaptureFixture
) -> None:
    """Its memory has another size, and it has a block more."""
    caplog.set_level("INFO")
    folder, weights = model(tmp_path / "first", config, memory_slots=6, decoder_blocks=2)
    run_training.train(begins_with(config, folder))
    (state,) = begun
    assert state is not None
    own = initial_weights(config.model, config.run.seed)
    assert state.weights.keys() == own.keys()
    for name, tensor in state.weights.items():
        assert torch.equal(tensor, own[name] if name == "memory.bank" else weights[name]), name
    (line,) = [message for message in caplog.messages if message.startswith("starting from")]
    left = [name for name in weights if name not in own]
    assert f"; these start anew: memory.bank (4x6 there, 4x4 here); these of it are left out: {left[0]}" in line
    assert "\n" not in line


def test_a_wider_and_deeper_network_begins_as_the_model(
    config: Config, tmp_path: Path, begun: list[TrainState | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    smaller = dataclasses.replace(config.model, attention="none", memory_slots=0)
    trained = {name: torch.rand_like(tensor) / 4 for name, tensor in initial_weights(smaller, 5).items()}
    folder = str(tmp_path / "first")
    model_folder.save(folder, trained, dataclasses.replace(config, model=smaller))
    wanted = dataclasses.replace(smaller, channels=2 * smaller.channels, decoder_blocks=smaller.decoder_blocks + 1)
    run_training.train(begins_with(dataclasses.replace(config, model=wanted), folder))
    (state,) = begun
    assert state is not None
    network = Mana(wanted)
    network.load_state_dict(dict(state.weights))
    frames = torch.rand(1, wanted.frames, 3, 16, 20)
    with torch.no_grad():
        torch.testing.assert_close(network(frames), model_folder.load(folder)[0](frames))
    (line,) = [message for message in caplog.messages if message.startswith("starting from")]
    assert f"grown from {smaller.channels} channels, " in line
    assert f" to {wanted.channels} channels, " in line


def test_a_model_that_cannot_be_used_is_refused_before_anything_begins(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = model(tmp_path / "first", config)
    (tmp_path / "odd").mkdir()
    monkeypatch.setattr(starting_weights, "initial_weights", lambda *_: {"other": torch.zeros(2)})
    for init, message in [
        (str(tmp_path / "nowhere"), r"run\.init: model .*nowhere: no such folder; name one that holds"),
        (str(tmp_path / "odd"), r"run\.init: model .*odd: config\.yaml is missing"),
        (folder, r"run\.init .*first: none of its weights fits this network; name another model"),
    ]:
        with pytest.raises(UserError, match=message):
            run_training.train(begins_with(config, init))
        assert not Path(config.run.storage, "one", "run.json").exists()


def test_a_resumed_run_needs_the_model_no_longer_but_takes_no_other(
    config: Config, tmp_path: Path, begun: list[TrainState | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, weights = model(tmp_path / "first", config)
    moved = shutil.copytree(folder, tmp_path / "moved")
    other, _ = model(tmp_path / "other", config, memory_slots=6)
    with monkeypatch.context() as patched:
        patched.setattr(ray_fit, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            run_training.train(begins_with(config, folder))
    another = r"was started from a model with SHA-256 \w{12}, run.init .* has \w{12}; give that one or leave"
    with pytest.raises(UserError, match=another):
        run_training.train(begins_with(config, other))
    shutil.rmtree(folder)
    shutil.copytree(other, folder)  # the same name, another model
    with pytest.raises(UserError, match=another):
        run_training.train(begins_with(config, folder))
    shutil.rmtree(folder)
    for init in (folder, str(moved), None):
        with monkeypatch.context() as patched:
            patched.setattr(ray_fit, "fit", killed)
            with pytest.raises(KeyboardInterrupt):
                run_training.train(begins_with(config, init))
    run_training.train(config)
    assert begun[0] is not None
    assert all(torch.equal(begun[0].weights[name], tensor) for name, tensor in weights.items())
    record = run_record.load(config)
    assert record is not None
    assert record.init == model_folder.digest(str(moved))


def test_killed_before_its_first_checkpoint_a_run_begins_with_the_same_model_or_not_at_all(
    config: Config, tmp_path: Path, begun: list[TrainState | None]
) -> None:
    folder, weights = model(tmp_path / "first", config)
    other, _ = model(tmp_path / "other", config, memory_slots=6)
    run_training.train(begins_with(config, folder))
    for entry in Path(config.run.storage, "one").glob("checkpoint_*"):
        shutil.rmtree(entry)
    shutil.rmtree(Path(config.run.storage, "one", "model"))
    with pytest.raises(UserError, match="started from a model and has no checkpoint yet"):
        run_training.train(config)
    with pytest.raises(UserError, match="was started from a model with"):
        run_training.train(begins_with(config, other))
    run_training.train(begins_with(config, folder))
    assert begun[-1] is not None
    assert all(torch.equal(begun[-1].weights[name], tensor) for name, tensor in weights.items())


def test_a_run_that_began_at_random_does_not_become_another(
    config: Config, tmp_path: Path, begun: list[TrainState | None]
) -> None:
    folder, _ = model(tmp_path / "first", config)
    run_training.train(config)
    assert begun == [None]
    with pytest.raises(UserError, match=r"was started without run\.init, now it is .*first; leave it out"):
        run_training.train(begins_with(config, folder))


def test_a_registered_model_is_taken_too(config: Config, begun: list[TrainState | None]) -> None:
    trained = run_training.train(config)
    named = dataclasses.replace(
        config, run=dataclasses.replace(config.run, name="two", init="models:/mana-x4@candidate")
    )
    run_training.train(named)
    state = begun[-1]
    assert state is not None
    first = model_folder.load(trained.model)[0].state_dict()
    assert all(torch.equal(state.weights[name], tensor) for name, tensor in first.items())
    run_training.train(named)  # whatever the alias points at by now
    assert len(begun) == 2
