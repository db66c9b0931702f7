"""Evaluations at scales 2 and 3."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from mana_dist.config import Config
from mana_dist.data.degradation import BI, bicubic_upsample, degrade
from mana_dist.errors import UserError
from mana_dist.model import Mana, inference
from mana_dist.registry import model_folder
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder, write_pair
from tests.serve.models import CONFIG


def save(folder: Path, scale: int) -> tuple[str, Mana]:
    torch.manual_seed(0)
    config = Config(model=dataclasses.replace(CONFIG.model, scale=scale))
    model = Mana(config.model).eval()
    model_folder.save(str(folder), model.state_dict(), config)
    return str(folder), model


@pytest.mark.parametrize("scale", [2, 3])
def test_scores_equal_those_by_hand(tmp_path: Path, scale: int) -> None:
    name, model = save(tmp_path / "model", scale)
    frames = frames_of(3, height=49, width=62)
    write_folder(tmp_path / "clip", frames)
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", name, "--scale", str(scale)]
    report = evaluate(tmp_path / "out", *arguments)
    height, width = 49 - 49 % scale, 62 - 62 % scale
    hr = np.ascontiguousarray(frames[:, :height, :width])
    lr = degrade(hr, BI, scale)
    outputs = {
        "bicubic": list(bicubic_upsample(lr, scale)),
        name: list(inference.super_resolve(model, lr)),
    }
    for method, made in outputs.items():
        expected = [peak_signal_noise_ratio(hr[number], made[number], data_range=255) for number in range(3)]
        assert mean_of(report, method)["psnr_rgb"] == pytest.approx(np.mean(expected))
    protocol = report["protocol"]
    assert protocol["scale"] == scale
    assert f"by {scale}" in protocol["bicubic"]
    assert f"multiples of {scale}" in protocol["size"]
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(("lr", "scale"), [("BIx2", 2), ("BIx3", 3), ("LR", 2)])
def test_given_lr_frames_are_found_by_their_scales_names(tmp_path: Path, lr: str, scale: int) -> None:
    frames = frames_of(3, height=48, width=66)
    write_pair(tmp_path / "data", "GT/walk", f"{lr}/walk", frames, scale=scale)
    common = ["--data", str(tmp_path / "data"), "--method", "bicubic", "--scale", str(scale)]
    given = evaluate(tmp_path / "given", *common, "--lr", "given")
    made = evaluate(tmp_path / "made", *common, "--lr", "made")
    assert given["protocol"]["datasets"][0]["lr"] == f"given: {lr}"
    assert mean_of(given) == mean_of(made)


def test_what_does_not_fit_the_scale_is_refused(tmp_path: Path) -> None:
    name, _ = save(tmp_path / "model", 2)
    write_folder(tmp_path / "clip", frames_of(2))
    common = ["--data", str(tmp_path / "clip"), "--method"]
    with pytest.raises(UserError, match="a model of scale 2; give --scale 2"):
        evaluate(tmp_path / "out", *common, name)
    with pytest.raises(UserError, match="degradation BD is defined for scale 4, not 2"):
        evaluate(tmp_path / "out", *common, name, "--scale", "2", "--degradation", "BD")
