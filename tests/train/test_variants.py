"""The networks that the paper compares itself with go the whole way of ``python -m mana_dist.train``."""

from pathlib import Path

import pytest
import torch

from mana_dist.registry import model_folder
from tests.train.trainings import DATA, TINY, history, make_workplace, train


@pytest.mark.slow
def test_a_softmax_window_without_memory_trains_and_its_model_loads(tmp_path: Path) -> None:
    """The paper's No_Mem has no stage 2; ``test_schedule`` has every variant in every stage, without Ray."""
    make_workplace(tmp_path)
    few = ["--schedule.stage1.steps", "6", "--schedule.stage3.steps", "2", "--run.workers", "1"]
    variant = ["--model.attention", "softmax_window", "--model.memory_slots", "0"]
    arguments = [*TINY, *DATA, *few, "--run.name", "variant"]
    done = train(tmp_path, *arguments, *variant)
    assert done.returncode == 0, done.stderr
    assert "steps: stage 1: 6, stage 3: 2" in done.stdout
    assert sorted(history(tmp_path, "variant")) == list(range(1, 9))

    model, config = model_folder.load(str(tmp_path / "runs" / "variant" / "model"))
    assert (config.model.attention, config.model.memory_slots) == ("softmax_window", 0)
    assert model.attention.project.weight.any()  # it started at zero
    with torch.no_grad():
        assert model(torch.rand(1, 7, 3, 9, 8)).isfinite().all()

    other = train(tmp_path, *arguments, *variant, "--model.attention", "dense")
    assert other.returncode == 2
    assert "run variant was started with model.attention softmax_window, now it is dense" in other.stderr


@pytest.mark.slow
def test_a_model_of_another_scale_trains_and_is_registered_as_such(tmp_path: Path) -> None:
    make_workplace(tmp_path, scale=2)
    few = ["--schedule.stage1.steps", "4", "--schedule.stage2.steps", "0", "--schedule.stage3.steps", "0"]
    arguments = [*TINY, *DATA, *few, "--run.workers", "1", "--run.name", "double", "--model.attention", "phases"]
    done = train(tmp_path, *arguments, "--model.scale", "2")
    assert done.returncode == 0, done.stderr
    assert "validation at step 4: PSNR" in done.stdout
    assert "models:/mana-x2/1" in done.stdout
    model, _ = model_folder.load(str(tmp_path / "runs" / "double" / "model"))
    with torch.no_grad():
        assert model(torch.rand(1, 7, 3, 9, 8)).shape == (1, 3, 18, 16)

    other = train(tmp_path, *arguments, "--model.scale", "3")
    assert other.returncode == 2
    assert "are of scale 2, model.scale is 3; ingest with --scale 3 or set model.scale 2" in other.stderr
