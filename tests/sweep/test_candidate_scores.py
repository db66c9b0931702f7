"""A sweep's best model meets the holder of the alias on what the sweep evaluates on."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from mana_dist.config import Config, DataConfig, MlflowConfig, RunConfig
from mana_dist.evaluate.results import Scores
from mana_dist.model import Mana, ModelConfig
from mana_dist.model.inference import super_resolve
from mana_dist.registry import model_folder
from mana_dist.registry.candidate import Decision
from mana_dist.registry.versions import Registered
from mana_dist.sweep import candidate_scores
from mana_dist.sweep.config import Judging
from mana_dist.sweep.trial_outcomes import Outcome, Status
from tests.evaluate.footage import frames_of, write_folder

CONFIG = Config(
    model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, frames=3, window=3, memory_slots=4),
    data=DataConfig(batch_size=1),
    run=RunConfig(device="cpu"),
    mlflow=MlflowConfig(registered_model="x"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry whose version 1 has the alias, and with a clip whose truth is that model's output."""
    folder = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(0)
    holder = Mana(CONFIG.model).eval()
    model_folder.save(str(folder / "holder"), holder.state_dict(), CONFIG)
    frames = frames_of(2)[:, ::4, ::4]
    write_folder(folder / "set" / "LR" / "walk", frames)
    write_folder(folder / "set" / "HR" / "walk", np.stack(list(super_resolve(holder, frames))))
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model("x")
    for _ in range(2):
        client.create_model_version("x", f"file://{folder}/holder")
    return folder


def settled(place: Path, psnr: float) -> Decision:
    uri = f"sqlite:///{place}/mlflow.db"
    MlflowClient(uri).set_registered_model_alias("x", "candidate", "1")
    mean = Scores({"psnr_rgb": psnr, "ssim_rgb": 0.9, "lpips": None, "psnr_y": psnr, "ssim_y": 0.9}, frames=2)
    outcome = Outcome(status=Status.FINISHED, mean=mean)
    judging = Judging(data=(str(place / "set"),))
    return candidate_scores.settle(CONFIG, outcome, judging, Registered("x", "2"), uri, str(place / "runs"))


def test_no_model_beats_the_one_whose_output_is_the_truth(place: Path) -> None:
    decision = settled(place, 90.0)
    assert not decision.holds
    assert "PSNR 90.000 dB against inf of version 1 and" in decision.reason
    assert not settled(place, math.inf).holds  # again, over the files of the first


def test_a_holder_that_is_gone_keeps_the_alias_and_the_sweep_ends_well(place: Path) -> None:
    weights = place / "holder" / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    try:
        decision = settled(place, 90.0)
    finally:
        weights.write_bytes(kept)
    assert not decision.holds
    assert "which cannot be compared (model models:/x/1: holds no model.safetensors" in decision.reason


def test_the_key_opts_out(place: Path) -> None:
    config = dataclasses.replace(CONFIG, mlflow=dataclasses.replace(CONFIG.mlflow, candidate="always"))
    uri = f"sqlite:///{place}/mlflow.db"
    MlflowClient(uri).set_registered_model_alias("x", "candidate", "1")
    outcome = Outcome(status=Status.FINISHED)
    decision = candidate_scores.settle(
        config, outcome, Judging(data=()), Registered("x", "2"), uri, str(place / "runs")
    )
    assert decision == Decision(True, "mlflow.candidate is always")
