"""Motion in pixels that is known, and the subset of clips in which most moves."""

from pathlib import Path

import numpy as np
import pytest

from mana_dist.errors import UserError
from mana_dist.evaluate.motion import Motion, parse_top_motion, top_motion
from mana_dist.evaluate.results import ClipScores
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder


def clip(name: str, motion: float | None) -> ClipScores:
    return ClipScores(clip=name, dataset="d", scores=(), motion=motion)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_shift_is_measured_in_pixels_per_frame(step: int) -> None:
    motion = Motion()
    for frame in frames_of(4, 3, 96, 96, step):
        motion.add(frame)
    assert motion.mean == pytest.approx(step * 2**0.5, rel=0.15)  # down and right; borders blur it


def test_still_frames_and_a_single_frame() -> None:
    motion = Motion()
    assert motion.mean is None
    frame = frames_of(1)[0]
    motion.add(frame)
    assert motion.mean is None
    motion.add(frame)
    assert motion.mean == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("size", [(3, 3), (3, 40), (12, 16)])
def test_tiny_frames_have_some_motion(size: tuple[int, int]) -> None:
    motion = Motion()
    for frame in frames_of(3, 0, *size):
        motion.add(frame)
    assert motion.mean is not None
    assert np.isfinite(motion.mean)


@pytest.mark.parametrize(
    ("text", "clips", "expected"),
    [("6%", 7824, 470), ("6%", 50, 3), ("6%", 51, 4), ("6%", 1, 1), ("0.1%", 20, 1), ("100%", 3, 3), ("2", 5, 2),
     ("9", 5, 5)],
)  # fmt: skip
def test_shares_are_rounded_up_and_never_empty(text: str, clips: int, expected: int) -> None:
    assert parse_top_motion(text).count(clips) == expected


@pytest.mark.parametrize("text", ["0%", "101%", "0", "1.5", "some", "6 %", "-1", "%"])
def test_what_is_neither_share_nor_number_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write a share of the clips like 6%, or a number of clips"):
        parse_top_motion(text)


def test_largest_first_ties_by_name_single_frames_last() -> None:
    clips = [clip("d", 1.0), clip("still", None), clip("c", 2.0), clip("a", 1.0), clip("e", 0.0)]
    assert top_motion(clips, parse_top_motion("3")) == ("c", "a", "d")
    assert top_motion(clips, parse_top_motion("100%")) == ("c", "a", "d", "e", "still")


def test_the_subset_and_its_means_are_in_the_metrics(tmp_path: Path) -> None:
    for step, name in ((0, "still"), (8, "fast"), (4, "slow")):
        write_folder(tmp_path / "data" / name, frames_of(3, step, step=step))
    report = evaluate(
        tmp_path / "out", *["--data", str(tmp_path / "data"), "--method", "bicubic", "--top-motion", "34%"]
    )
    rows = {row["name"]: row for row in report["methods"]["bicubic"]["clips"]}
    assert rows["still"]["motion"] < rows["slow"]["motion"] < rows["fast"]["motion"]
    top = report["top_motion"]
    assert (top["share"], top["clips"]) == ("34%", ["fast", "slow"])
    assert top["methods"]["bicubic"]["psnr_rgb"] == pytest.approx(
        (rows["fast"]["psnr_rgb"] + rows["slow"]["psnr_rgb"]) / 2
    )
    assert mean_of(report)["frames"] == 9
    assert "LR pixels per frame" in report["protocol"]["motion"]
