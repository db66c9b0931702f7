"""Given LR frames are compared with ours: a shift is named, other pictures are refused."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mana_dist.data.degradation import BD, BI, Degradation, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.datasets import find_datasets
from mana_dist.evaluate.methods import Bicubic
from mana_dist.evaluate.scored_clips import find_clips
from mana_dist.evaluate.scoring import Settings, score_clip
from tests.evaluate.evaluations import MEASURES
from tests.evaluate.footage import evaluate, write_folder

Frames = NDArray[np.uint8]
SIZE = (160, 224)
WAVES = np.random.default_rng(0).uniform([-0.05, -0.05, 0], [0.05, 0.05, 2 * np.pi], (24, 3))


def scene(time: float, right: float = 0, down: float = 0) -> Frames:
    """An HR frame: waves that run at speeds of their own, seen from a place so many HR pixels further left and up.

    In closed form, so that a shifted LR frame is made of a frame that really lies elsewhere, not of a resampled one.
    """
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    across, along, phase = (value[:, None, None] for value in WAVES.T)
    speeds = np.linspace(-0.4, 0.4, len(WAVES))[:, None, None]
    waves = np.cos(2 * np.pi * (across * (x - right) + along * (y - down)) + phase + speeds * time).sum(0)
    grey = np.rint(128 + waves * 7).clip(0, 255).astype(np.uint8)
    return np.dstack([grey, grey // 2 + 60, grey // 3])


def frames(count: int = 4, right: float = 0, down: float = 0, first: int = 0) -> Frames:
    return np.stack([scene(first + number, right, down) for number in range(count)])


def notes(
    tmp_path: Path,
    hr: Frames,
    lr: Frames,
    layout: tuple[str, str] = ("HR", "LR"),
    degradation: Degradation = BI,
) -> tuple[str, ...]:
    write_folder(tmp_path / "set" / layout[0], hr)
    write_folder(tmp_path / "set" / layout[1], lr)
    (clip,) = find_clips(find_datasets([str(tmp_path / "set")], degradation, "given"))
    return score_clip(clip, Settings(methods=(Bicubic(),), degradation=degradation, measures=MEASURES)).scores.notes


def resized(kind: int) -> Callable[[Frames], Frames]:
    return lambda frame: cv2.resize(frame, (SIZE[1] // 4, SIZE[0] // 4), interpolation=kind)


def jpeg(frame: Frames) -> Frames:
    stream = io.BytesIO()
    Image.fromarray(degrade(frame, BI)).save(stream, "JPEG", quality=50)
    return np.asarray(Image.open(stream))


def pillow(frame: Frames) -> Frames:
    return np.asarray(Image.fromarray(frame).resize((SIZE[1] // 4, SIZE[0] // 4), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kernel", [pillow, resized(cv2.INTER_CUBIC), resized(cv2.INTER_AREA), jpeg])
def test_other_kernels_of_the_same_phase_are_passed(tmp_path: Path, kernel: Callable[[Frames], Frames]) -> None:
    hr = frames()
    assert notes(tmp_path, hr, np.stack([kernel(frame) for frame in hr])) == ()


@pytest.mark.parametrize(("right", "down"), [(0.25, 0), (-0.5, 0.5), (1, -0.375), (0, 0.1)])
def test_a_shift_is_named(tmp_path: Path, right: float, down: float) -> None:
    lr = degrade(frames(4, 4 * right, 4 * down), BI)
    (note,) = notes(tmp_path, frames(), lr, ("c/truth", "c/input4"))
    assert note.endswith("than our BI's; --lr made has no shift")
    for shift, names in ((right, ("right", "left")), (down, ("down", "up"))):
        ahead, back = names
        if shift == 0:
            assert f"further {ahead}" not in note
            assert f"further {back}" not in note
        else:
            noted = note.split(f" LR pixels further {ahead if shift > 0 else back}")[0].split()[-1]
            assert abs(float(noted) - abs(shift)) <= 0.05


def test_bd_taken_for_bi_is_named(tmp_path: Path) -> None:
    """By the definitions BD's pixel i lies at HR 4i, BI's at 4i + 1.5: 0.375 LR pixels."""
    lr = degrade(frames(), BD)
    (note,) = notes(tmp_path, frames(), lr, ("GT/c", "BIx4/c"))
    noted = [float(part.split()[-1]) for part in note.split(" LR pixels")[:2]]
    assert noted == pytest.approx([0.375, 0.375], abs=0.03)
    assert "right" in note
    assert "down" in note


def test_bd_as_such_and_our_own_bi_have_no_shift(tmp_path: Path) -> None:
    assert notes(tmp_path, frames(), degrade(frames(), BI)) == ()
    low = degrade(frames(), BD)
    assert notes(tmp_path / "bd", frames(), low, ("GT/c", "BDx4/c"), BD) == ()


@pytest.mark.parametrize("offset", [-1, 1])
@pytest.mark.parametrize("kernel", [lambda frame: degrade(frame, BI), jpeg])
def test_an_offset_in_time_is_refused(tmp_path: Path, offset: int, kernel: Callable[[Frames], Frames]) -> None:
    lr = np.stack([kernel(frame) for frame in frames(first=offset)])
    with pytest.raises(
        UserError, match=rf"LR frame 1 shows frame {1 + offset} of .*HR, not 1; mend the dataset or use"
    ):
        notes(tmp_path, frames(), lr)


def test_another_clip_is_refused_and_lr_made_does_without_it(tmp_path: Path) -> None:
    lr = degrade(frames(first=90), BI)
    with pytest.raises(UserError, match=r"LR: LR frame 1 does not show what frame 1 of .*HR shows \(correlation"):
        notes(tmp_path, frames(), lr)
    (clip,) = find_clips(find_datasets([str(tmp_path / "set")], BI, "made"))
    assert score_clip(clip, Settings(methods=(Bicubic(),), degradation=BI, measures=MEASURES)).scores.notes == ()


def test_a_shift_of_a_single_frame_stands_in_the_report_and_in_metrics_json(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, frames(1), degrade(frames(1, 2), BI))
    assert "further right" in note
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "set"), "--method", "bicubic")
    assert report["methods"]["bicubic"]["clips"][0]["notes"] == [note]
    assert note in (tmp_path / "out" / "report.md").read_text()
