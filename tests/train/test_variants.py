"""The networks that the paper compares itself with go the whole way of ``python -m mana_dist.train``."""

from pathlib import Path

import pytest
import torch

from mana_dist.registry import model_folder
from mana_dist.train.__main__ import main
from tests.conftest import RunHere
from tests.train.trainings import DATA, TINY, history, make_workplace, train


@pytest.mark.slow
def test_matched_patches_without_memory_train_at_another_scale_and_its_model_loads(
    tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's No_Mem has no stage 2; ``test_schedule`` has every variant in every stage, without Ray."""
    make_workplace(tmp_path, scale=2)
    few = ["--schedule.stage1.steps", "6", "--schedule.stage3.steps", "2", "--run.workers", "1"]
    variant = ["--model.attention", "phases", "--model.memory_slots", "0", "--model.scale", "2"]
    arguments = [*TINY, *DATA, *few, "--run.validate_every", "8", "--run.name", "variant", *variant]
    done = train(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "steps: stage 1: 6, stage 3: 2" in done.stdout
    assert "data: 22 samples an epoch, batch 5, so 1.8 passes over them" in done.stdout
    assert "validation at step 8: PSNR" in done.stdout
    assert "models:/mana-x2/1" in done.stdout
    assert sorted(history(tmp_path, "variant")) == list(range(1, 9))

    model, config = model_folder.load(str(tmp_path / "runs" / "variant" / "model"))
    assert (config.model.attention, config.model.memory_slots) == ("phases", 0)
    assert model.attention.project.weight.any()  # it started at zero
    with torch.no_grad():
        frame = model(torch.rand(1, 7, 3, 9, 8))
    assert frame.shape == (1, 3, 18, 16)
    assert frame.isfinite().all()

    monkeypatch.chdir(tmp_path)
    for keys, message in (
        (
            ["--model.attention", "dense"],
            "run variant was started with model.attention phases, now it is dense",
        ),
        (
            ["--model.scale", "3"],
            "are of scale 2, model.scale is 3; ingest with --scale 3 or set model.scale 2",
        ),
    ):
        other = run_here(main, *arguments, *keys)
        assert other.returncode == 2
        assert message in other.stderr
