"""Flicker in an evaluation: of which frames it is taken, and where it is shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mana_dist.data.degradation import BI, bicubic_upsample, degrade
from mana_dist.evaluate import report
from mana_dist.evaluate.evaluation_run import values
from mana_dist.evaluate.motion import flow_back
from mana_dist.evaluate.promote import parse_condition
from mana_dist.evaluate.report import markdown
from mana_dist.evaluate.results import Scores, mean
from tests.evaluate.evaluations import clip, evaluation, page_of, scores
from tests.evaluate.footage import Frames, evaluate, frames_of, mean_of, write_folder

HEADING = "flicker (grey levels) ↓"


def shaken(frames: Frames, seed: int) -> Frames:
    """The frames with other noise in each."""
    return np.clip(frames + np.random.default_rng(seed).normal(0, 8, frames.shape), 0, 255).astype(np.uint8)


def of_still(outputs: Frames, border: int = 0) -> float:
    """Mean change of what stands still."""
    inner = slice(border, -border or None)
    changes = np.abs(np.diff(outputs.astype(float), axis=0))[:, inner, inner]
    return float(changes.mean())


def test_of_clips_that_stand_still_it_is_the_change_of_the_frames(tmp_path: Path) -> None:
    clips = {"one": frames_of(5, 0, step=0), "other": frames_of(3, 1, step=0), "single": frames_of(1)}
    made = {name: shaken(frames, seed) for seed, (name, frames) in enumerate(clips.items())}
    for name, frames in clips.items():
        write_folder(tmp_path / "data" / name, frames)
        write_folder(tmp_path / "made" / name, made[name])
        write_folder(tmp_path / "truth" / name, frames)
    methods = ["--method", "bicubic", f"frames:X={tmp_path}/made", f"frames:HR={tmp_path}/truth"]
    found = evaluate(tmp_path / "out", "--data", str(tmp_path / "data"), *methods, "--border-crop", "2")
    one, other, single = (entry["flicker"] for entry in found["methods"]["X"]["clips"])
    # Farneback's flow of what stands still is not quite zero.
    assert (one, other) == pytest.approx([of_still(made["one"], 2), of_still(made["other"], 2)], rel=0.02)
    assert single is None
    assert mean_of(found, "X")["flicker"] == pytest.approx((one + other) / 2)
    assert found["methods"]["X"]["datasets"]["data"]["flicker"] == mean_of(found, "X")["flicker"]
    assert mean_of(found, "bicubic")["flicker"] < 0.05
    assert mean_of(found, "HR")["flicker"] == 0
    assert mean_of(found, "X")["psnr_y"] is not None
    assert "half size" in found["protocol"]["flicker"]
    for file in ("report.md", "report.html"):
        text = (tmp_path / "out" / file).read_text()
        assert f"{mean_of(found, 'X')['flicker']:.2f}" in text
        assert "over the clips that have one" in text


def test_of_a_clip_that_moves_it_is_taken_along_the_motion(tmp_path: Path) -> None:
    """What moves by whole LR pixels has the same bicubic error in each frame; noise of each frame has not."""
    frames = frames_of(4, 2, 96, 128, step=4)
    outputs = shaken(bicubic_upsample(degrade(frames, BI)), 0)
    errors = outputs.astype(float) - frames
    along = np.abs(errors[1:, :-4, :-4] - errors[:-1, 4:, 4:]).mean()
    write_folder(tmp_path / "clip", frames)
    write_folder(tmp_path / "made", outputs)
    methods = ["--method", "bicubic", f"frames:X={tmp_path}/made"]
    found = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), *methods)
    assert mean_of(found, "X")["flicker"] == pytest.approx(along, rel=0.1)
    assert mean_of(found, "bicubic")["flicker"] < 0.2 * along


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_flow_leads_back_to_the_frame_before(step: int) -> None:
    before, now = frames_of(2, 3, 96, 128, step)
    inner = flow_back(before, now)[20:-20, 20:-20]
    assert np.median(inner, axis=(0, 1)) == pytest.approx([step, step], abs=0.15)


@pytest.mark.parametrize("change", ["centre", "cut"])
def test_frames_that_are_no_neighbours_have_none(tmp_path: Path, change: str) -> None:
    frames = frames_of(2, 0, step=0)
    if change == "cut":
        frames[1] = 255 - frames[1]
    write_folder(tmp_path / "clip", frames)
    subset = ["--frame-subset", "centre"] if change == "centre" else []
    found = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic", *subset)
    assert mean_of(found)["flicker"] is None
    assert HEADING not in (tmp_path / "out" / "report.md").read_text()


def test_no_change_spans_a_gap(tmp_path: Path) -> None:
    """Frames 0, 1, 3, 4 and the flicker of two pairs, not three."""
    frames, rng = frames_of(4, 0, step=0), np.random.default_rng(0)
    made = frames.copy()
    made[2:] = np.clip(frames[2:] + rng.normal(0, 8, frames[2:].shape), 0, 255)
    for name, shown in (("clip", frames), ("made", made)):
        write_folder(tmp_path / name, shown)
        for number in (3, 2):
            (tmp_path / name / f"{number:04}.png").rename(tmp_path / name / f"{number + 1:04}.png")
    arguments = ["--data", str(tmp_path / "clip"), "--method", f"frames:X={tmp_path}/made"]
    found = mean_of(evaluate(tmp_path / "out", *arguments), "X")
    assert found["flicker"] == pytest.approx(of_still(made[2:]) / 2, rel=0.02)


def flickering(psnr: float, value: float | None) -> Scores:
    found = scores(psnr)
    return replace(found, values={**found.values, "flicker": value})


def test_tables_mark_the_smallest_and_have_no_column_where_no_clip_has_one() -> None:
    without = evaluation(("bicubic", "MANA"), clip("a", flickering(20, None), flickering(21, None)))
    assert "flicker" not in report.table(without) + markdown.report(without, []) + page_of(without)
    taken = evaluation(
        ("bicubic", "MANA"),
        clip("a", flickering(20, 2.5), flickering(21, 1.5)),
        clip("b", flickering(20, None), flickering(21, None)),
    )
    head, _, bicubic, mana = ([cell.strip() for cell in row.split("|")] for row in report.table(taken).split("\n")[2:6])
    place = head.index(HEADING)
    assert (bicubic[place], mana[place]) == ("_2.50_", "**1.50**")
    assert HEADING in page_of(taken).replace("<br>", " ").replace("&nbsp;", " ")


def test_mlflow_and_conditions_know_it() -> None:
    found: dict[str, Any] = dict(values(mean([flickering(30, 1.0), flickering(30, None), flickering(30, 2.0)])))
    assert found["flicker"] == 1.5
    assert "flicker" not in dict(values(flickering(30, None)))
    assert not parse_condition("flicker < @champion").metric.larger_is_better
