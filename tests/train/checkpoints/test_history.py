"""A run's checkpoints: which one is gone on from, which are kept."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch

from mana_dist.config import Config, RunConfig
from mana_dist.errors import UserError
from mana_dist.storage.lease import LostError
from mana_dist.train.checkpoints.checkpoint import TrainState
from mana_dist.train.checkpoints.history import Best, Checkpoints
from tests.ingest.datasets import tree

MOMENTS = {"exp_avg.weight": torch.zeros(3)}


def checkpoints(folder: Path, keep: int = 2, best: Literal["psnr", "ssim"] | None = None) -> Checkpoints:
    run = RunConfig(name="one", storage=str(folder), keep_checkpoints=keep, keep_best=best)
    return Checkpoints(Config(run=run))


def state(step: int) -> TrainState:
    return TrainState(step, {"weight": torch.full((3,), float(step))}, MOMENTS, losses=(1.0,) * min(step, 9))


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "one").iterdir())


def newest_step(run: Checkpoints) -> int | None:
    found = run.newest().state
    return found.step if found else None


def test_a_new_run_has_none(tmp_path: Path) -> None:
    found = checkpoints(tmp_path).newest()
    assert (found.state, found.damaged) == (None, ())


def test_a_run_that_is_anothers_by_now_is_left_as_it_is(tmp_path: Path) -> None:
    """However far a checkpoint had come: before its folder is cleared, before each of its files, before old ones go."""
    config = Config(run=RunConfig(name="one", storage=str(tmp_path), keep_checkpoints=1))
    for step in (6, 12):
        Checkpoints(config).write(state(step))
    for passed in range(6):
        answers = iter([True] * passed)

        def check(answers: Iterator[bool] = answers) -> None:
            if not next(answers, False):
                raise LostError("taken over")

        before = tree(tmp_path / "one")
        with pytest.raises(LostError):
            Checkpoints(config, check=check).write(state(18))
        now = tree(tmp_path / "one")
        assert {name: data for name, data in now.items() if "18/" not in name} == before
        assert len(now) - len(before) == max(0, passed - 1)
        shutil.rmtree(tmp_path / "one" / "checkpoint_00000018", ignore_errors=True)


def test_the_newest_counts_and_the_last_are_kept(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, keep=2)
    for step in (6, 12, 100_000_000):
        run.write(state(step))
    assert kept(tmp_path) == ["checkpoint_00000012", "checkpoint_100000000"]
    found = checkpoints(tmp_path).newest().state
    assert found is not None
    assert found.step == 100_000_000
    assert torch.equal(found.weights["weight"], torch.full((3,), 1e8))


def damage(folder: Path, step: int, name: str = "model.safetensors") -> None:
    file = folder / "one" / f"checkpoint_{step:08d}" / name
    file.write_bytes(file.read_bytes()[:-1])


def test_a_damaged_one_is_reported_and_the_one_before_is_used(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, keep=3)
    for step in (6, 12, 18):
        run.write(state(step))
    damage(tmp_path, 18)
    damage(tmp_path, 12, "config.yaml")
    found = checkpoints(tmp_path).newest()
    assert found.state is not None
    assert found.state.step == 6
    assert [(one.checkpoint[-19:], one.reason.split()[0]) for one in found.damaged] == [
        ("checkpoint_00000018", "model.safetensors"),
        ("checkpoint_00000012", "config.yaml"),
    ]


def test_a_damaged_one_does_not_push_a_whole_one_out(tmp_path: Path) -> None:
    """With two kept, 12 whole and 18 damaged: until there is another whole one, 12 must stay."""
    before = checkpoints(tmp_path, keep=2)
    before.write(state(12))
    before.write(state(18))
    damage(tmp_path, 18)
    run = checkpoints(tmp_path, keep=2)
    assert newest_step(run) == 12
    run.write(state(15))
    assert kept(tmp_path) == [f"checkpoint_{step:08d}" for step in (12, 15, 18)]
    run.write(state(18))  # over the damaged one
    assert kept(tmp_path) == [f"checkpoint_{step:08d}" for step in (15, 18)]
    assert newest_step(checkpoints(tmp_path)) == 18


def test_one_in_another_ones_place_is_not_used(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    run.write(state(6))
    (tmp_path / "one" / "checkpoint_00000006").rename(tmp_path / "one" / "checkpoint_00000012")
    run.write(state(3))
    found = run.newest()
    assert found.state is not None
    assert found.state.step == 3
    assert found.damaged[0].reason == "progress.json is of step 6, the folder's name of 12"


def test_without_adams_moments_it_is_used_at_a_stages_end_only(tmp_path: Path) -> None:
    """In the middle of one, Adam would start anew without a word."""
    config = Config(run=RunConfig(name="one", storage=str(tmp_path)))
    end = config.schedule.stage1.steps
    run = Checkpoints(config)
    run.write(TrainState(end, {"weight": torch.zeros(3)}, {}))
    assert newest_step(run) == end
    run.write(TrainState(end + 1, {"weight": torch.zeros(3)}, {}))
    found = run.newest()
    assert found.state is not None
    assert found.state.step == end
    assert found.damaged[0].reason == "optimizer.safetensors is missing in the middle of a stage"


def test_one_that_was_never_finished_is_passed_over(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    run.write(state(6))
    run.write(state(12))
    (tmp_path / "one" / "checkpoint_00000012" / "progress.json").unlink()
    found = run.newest()
    assert found.state is not None
    assert found.state.step == 6
    assert "is missing" in found.damaged[0].reason


def test_killed_in_its_very_first_checkpoint_a_run_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "one" / "checkpoint_00000006").mkdir(parents=True)
    assert newest_step(checkpoints(tmp_path)) is None


def test_none_left_to_use_is_an_error_that_names_them(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    run.write(state(6))
    run.write(state(12))
    damage(tmp_path, 6)
    damage(tmp_path, 12)
    with pytest.raises(UserError, match=r"run one: none of its checkpoints.*00000012: model.*00000006: model.*restore"):
        run.newest()


def test_other_files_of_the_run_are_left_alone(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, keep=1)
    (tmp_path / "one" / "model").mkdir(parents=True)
    (tmp_path / "one" / "checkpoint_notes").mkdir()
    for step in (6, 12):
        run.write(state(step))
    assert kept(tmp_path) == ["checkpoint_00000012", "checkpoint_notes", "model"]


def test_the_best_stays_beside_the_newest(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, keep=1, best="psnr")
    assert run.best() is None
    scores = {6: 30.0, 12: 31.5, 18: 31.5, 24: 29.0, 30: 32.0, 36: 31.0}
    found: dict[int, Best] = {}
    for step, score in scores.items():
        run.write(state(step))
        run.note_validation(step, score)
        best = checkpoints(tmp_path, keep=1, best="psnr").best()  # as another attempt sees it
        assert best is not None
        found[step] = best
        folders = [f"checkpoint_{kept_step:08d}" for kept_step in sorted({step, found[step].step})]
        # The one that was the best until now goes with the next.
        assert [name for name in kept(tmp_path) if name in folders] == folders
    assert {step: best.step for step, best in found.items()} == {6: 6, 12: 12, 18: 12, 24: 12, 30: 30, 36: 30}
    assert found[36] == Best(30, 32.0)
    assert kept(tmp_path) == ["best.json", "checkpoint_00000030", "checkpoint_00000036"]
    assert newest_step(run) == 36


def test_a_best_that_is_gone_is_none_and_a_validation_made_again_takes_its_own_place(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, best="ssim")
    run.write(state(6))
    run.note_validation(6, 0.9)
    run.note_validation(6, 0.8)  # by another number of workers
    assert run.best() == Best(6, 0.8)
    shutil.rmtree(tmp_path / "one" / "checkpoint_00000006")
    assert run.best() is None
    run.write(state(12))
    run.note_validation(12, 0.5)
    assert run.best() == Best(12, 0.5)
    (tmp_path / "one" / "best.json").write_text("{")
    assert run.best() is None


def test_without_keep_best_none_is_kept(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, keep=1, best="psnr")
    run.write(state(6))
    run.note_validation(6, 99.0)
    run = checkpoints(tmp_path, keep=1)
    run.write(state(12))
    assert run.best() is None
    assert kept(tmp_path) == ["best.json", "checkpoint_00000012"]
