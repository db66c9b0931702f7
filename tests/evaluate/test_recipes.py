"""Evaluating by a recipe: the LR frames are the recipe's, and the protocol holds all of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from skimage.metrics import peak_signal_noise_ratio

from mana_dist.data.degradation import Degradation, bicubic_upsample, degrade_clip
from mana_dist.data.degradation.operations import Noise, Resize
from mana_dist.data.degradation.recipe import Recipe
from mana_dist.data.degradation.recipe_file import recipe_of
from mana_dist.data.degradation.video_compression import VideoCompression
from tests.data.test_recipe import Hr
from tests.evaluate.footage import evaluate, frames_of, write_folder

RECIPE = Recipe(
    name="mine",
    version=3,
    segment=4,
    operations=(Noise(drift=5), Resize(), VideoCompression(codecs={"h264": (25, 25)})),
)


def test_a_recipes_file_makes_the_lr_frames(tmp_path: Path) -> None:
    frames = frames_of(7)
    write_folder(tmp_path / "clip", frames)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(RECIPE.to_mapping()))
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", "--degradation", str(path)]
    report = evaluate(tmp_path / "out", *arguments)
    protocol, (row,) = report["protocol"], report["methods"]["bicubic"]["clips"]
    assert (protocol["degradation"], protocol["degradation_version"]) == ("mine", 3)
    text = protocol["degradation_definition"].removeprefix("recipe ")
    assert recipe_of(json.loads(text)) == RECIPE
    clip = (Hr(number, 0, frame) for number, frame in enumerate(frames))
    lr = [low for _, low in degrade_clip(clip, Degradation.of_recipe(RECIPE), row["name"])]
    expected = [
        peak_signal_noise_ratio(hr, bicubic_upsample(low), data_range=255) for hr, low in zip(frames, lr, strict=True)
    ]
    assert row["psnr_rgb"] == pytest.approx(np.mean(expected))
    assert report["methods"] == evaluate(tmp_path / "again", *arguments)["methods"]
