"""Validation while training: the neighbour gain, and the picture that it shows."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from mana_dist.data.degradation import BI, degrade
from mana_dist.data.manifest import load_manifest
from mana_dist.data.mixture import Dataset
from mana_dist.data.row_groups import RowGroups
from mana_dist.model import Mana, ModelConfig
from mana_dist.train import validation
from mana_dist.train.schedule import Stage
from mana_dist.train.validation import Validation, _picture, ended_stage
from tests.data.shards import noise_dataset

CPU = torch.device("cpu")


def test_it_shows_the_part_in_which_bicubic_is_farthest_from_hr() -> None:
    """A checkerboard in one corner of a large grey frame: no bicubic upscaling brings it back."""
    hr = np.full((640, 1280, 3), 128, np.uint8)
    hr[400:480, 1000:1080] = 255 * (np.indices((80, 80)).sum(0) % 2)[..., None].astype(np.uint8)
    lr = degrade(hr, BI)
    picture = _picture(lr, hr, hr)
    height, width = picture.shape[:2]
    assert (height, width) < (420, 1400)
    panel = picture[-320:, -320:]  # of HR, enlarged twice
    assert (panel == 255).any()
    assert (panel == 0).any()


def model(attention: str = "one_hot", frames: int = 5) -> Mana:
    torch.manual_seed(3)
    config = ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=frames, window=3, memory_slots=4)
    made = Mana(ModelConfig(**{**vars(config), "attention": attention})).eval()
    if attention != "none":
        torch.nn.init.normal_(made.attention.project.weight)
    return made


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Windows of seven frames, of which a model of five takes the inner ones."""
    folder = str(tmp_path_factory.mktemp("held-out"))
    noise_dataset(folder, 40, 3, frames=7)
    return folder


@pytest.fixture
def all_reduce(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What one worker sums up with the others, instead of doing so."""
    sent: list[torch.Tensor] = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda sums: sent.append(sums.clone()))
    return sent


def gains_by_hand(uri: str, network: Mana, rows: list[int]) -> list[float]:
    """Of samples by number: the model's PSNR on the window less that on the centre frame five times."""
    gains = []
    with RowGroups([Dataset(uri, load_manifest(uri))], least=1, budget=0) as groups, torch.no_grad():
        for row in rows:
            lr, hr = groups[row // 3].lr[row % 3][1:6], groups[row // 3].hr[row % 3]
            real, alone = (
                network(torch.from_numpy(np.stack(window)).permute(0, 3, 1, 2)[None] / 255)
                for window in (list(lr), [lr[2]] * 5)
            )
            frames = (
                np.floor(np.clip(output[0].permute(1, 2, 0).numpy(), 0, 1) * 255 + 0.5).astype(np.uint8)
                for output in (real, alone)
            )
            values = [peak_signal_noise_ratio(hr, frame, data_range=255) for frame in frames]
            gains.append(values[0] - values[1])
    return gains


@pytest.mark.parametrize("attention", ["one_hot", "dense", "phases"])
def test_the_neighbour_gain_is_that_of_windows_of_one_frame(
    held_out: str, all_reduce: list[torch.Tensor], attention: str
) -> None:
    network = model(attention)
    found = Validation(held_out, 5, 3, rank=0, world_size=1).run(network, 7, CPU, ended_stage=2)
    expected = gains_by_hand(held_out, network, [0, 20, 39])  # 19.5 rounded half to even
    assert all(abs(gain) > 0.001 for gain in expected)
    assert found.neighbour_gain == pytest.approx(np.mean(expected), abs=1e-3)
    assert (found.step, found.ended_stage) == (7, 2)
    assert found.psnr > 0


def test_it_is_taken_on_eight_samples_whatever_the_number_of_workers(
    held_out: str, all_reduce: list[torch.Tensor]
) -> None:
    network = model()
    sums = {}
    for workers in (1, 2, 3):
        for rank in range(workers):
            Validation(held_out, 5, 40, rank, workers).run(network, 1, CPU)
        sums[workers] = torch.stack(all_reduce).sum(0)
        all_reduce.clear()
    chosen = [0, 6, 11, 17, 22, 28, 33, 39]  # of 40 samples
    assert sums[1][5] == 8
    assert sums[1][4] == pytest.approx(sum(gains_by_hand(held_out, network, chosen)), abs=1e-2)
    for workers in (2, 3):
        torch.testing.assert_close(sums[workers], sums[1], rtol=1e-12, atol=1e-12)


def test_samples_of_infinite_psnr_do_not_count(
    held_out: str, all_reduce: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([math.inf, math.inf, 30.0, 29.5, math.inf, 40.0])
    judge = Validation(held_out, 5, 3, rank=0, world_size=1)
    monkeypatch.setattr(validation, "psnr", lambda *_: next(answers))
    assert judge.run(model(), 1, CPU).neighbour_gain == 0.5


def test_without_neighbours_or_need_it_is_not_taken(
    held_out: str, all_reduce: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(validation, "_forward_alone", refuse)
    assert Validation(held_out, 1, 3, rank=0, world_size=1).run(model(frames=1), 1, CPU).neighbour_gain is None
    judge = Validation(held_out, 5, 3, rank=0, world_size=1)
    assert judge.run(model("none"), 1, CPU).neighbour_gain is None
    judge.psnr(model(), CPU)  # of candidates for the alias


def test_the_last_validation_of_each_stage() -> None:
    """Against a list of all validations of a run."""
    runs = [
        [Stage(1, 0, 20, 1e-3), Stage(2, 20, 28, 1e-3), Stage(3, 28, 40, 1e-3)],
        [Stage(1, 0, 7, 1e-3), Stage(3, 7, 8, 1e-3)],
        [Stage(3, 0, 5, 1e-3)],
    ]
    for stages in runs:
        for every in range(1, 45):
            steps = [step for step in range(1, stages[-1].stop + 1) if step % every == 0 or step == stages[-1].stop]
            expected = {}
            for stage in stages:
                for step in steps:
                    if stage.start < step <= stage.stop:
                        expected[stage.number] = step
            found = {ended_stage(step, every, stages): step for step in steps}
            found.pop(None, None)
            assert found == expected
