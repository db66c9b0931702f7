"""Scoring a clip: frames in step, memory that does not grow with the length, and what is said of damage."""

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.data.degradation import BI, bicubic_upsample, degrade, degrade_clip
from mana_dist.errors import UserError
from mana_dist.evaluate import scoring
from mana_dist.evaluate.datasets import find_datasets
from mana_dist.evaluate.methods import Bicubic
from mana_dist.evaluate.scored_clips import Clip, LrFrame, find_clips
from mana_dist.evaluate.scoring import Settings, score_clip
from mana_dist.evaluate.subset import ALL, CENTRE, FrameSubset
from mana_dist.model.inference import Frame
from tests.evaluate.evaluations import MEASURES
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder
from tests.video.videos import write_video

LENGTH = 150


@dataclass(frozen=True)
class Deaf:
    """Never looks at the LR frames, as outputs in files."""

    name: str = "deaf"

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        return (np.zeros((16, 16, 3), np.uint8) for _ in islice(wanted, LENGTH))


@dataclass(frozen=True)
class Ahead:
    """Bicubic that reads as far ahead as windows do."""

    name: str = "ahead"
    frames: int = 3

    def upscale(self, clip: Clip, frames: Iterable[LrFrame], wanted: range, device: str) -> Iterator[Frame]:
        return (bicubic_upsample(frame.pixels) for frame in self._late(frames) if frame.number in wanted)

    def _late(self, frames: Iterable[LrFrame]) -> Iterator[LrFrame]:
        held: deque[LrFrame] = deque()
        for frame in frames:
            held.append(frame)
            if len(held) > self.frames:
                yield held.popleft()
        yield from held


class Living:
    """The clip's frames, and how many of them, and of their LR frames, were alive at once."""

    def __init__(self) -> None:
        self.frames: list[weakref.ref[Frame]] = []
        self.most = self.decoded = 0

    def __call__(self, *_: object) -> Iterator[Frame]:
        for number in range(LENGTH):
            self.decoded += 1
            yield self.seen(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8))

    def seen(self, frame: Frame) -> Frame:
        self.frames.append(weakref.ref(frame))
        self.most = max(self.most, sum(reference() is not None for reference in self.frames))
        return frame


@pytest.mark.parametrize("subset", [ALL, CENTRE, FrameSubset("inner", 40)], ids=str)
def test_memory_does_not_grow_with_the_length(monkeypatch: pytest.MonkeyPatch, subset: FrameSubset) -> None:
    living = Living()
    monkeypatch.setattr(Clip, "frames", living)

    def seen(*arguments: Any) -> Iterator[tuple[Any, Frame]]:
        return ((frame, living.seen(lr)) for frame, lr in degrade_clip(*arguments))

    monkeypatch.setattr(scoring, "degrade_clip", seen)
    clip = Clip(name="c", dataset="d", path="c", uri="c", lr=None, start=0, stop=None, subset=subset, total=LENGTH,
                exact=True)  # fmt: skip
    methods = (Bicubic(), Deaf(), Ahead(), replace(Ahead(), name="far ahead", frames=20))
    scored = score_clip(clip, Settings(methods=methods, degradation=BI, measures=MEASURES))
    assert scored.frames == LENGTH
    bicubic, _, ahead, far = scored.scores.scores
    assert bicubic == ahead == far
    assert bicubic.frames == len(subset.of(LENGTH))
    # 20 of each that are read ahead, the last 32 LR frames, and a few in hand.
    assert living.most < 90
    if subset == ALL:
        assert living.decoded == LENGTH


def test_a_late_centre_is_that_of_the_clip(tmp_path: Path, model: str) -> None:
    """Methods begin there, long after the first frames were looked at; the model's windows see what lies around it."""
    write_folder(tmp_path / "clip", frames_of(70, 0, 16, 16))
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic", model]
    centre = evaluate(tmp_path / "1", *arguments, "--frame-subset", "centre")
    inner = evaluate(tmp_path / "2", *arguments, "--frames", "33:38", "--frame-subset", "inner:2")
    for method in ("bicubic", model):
        assert mean_of(centre, method) == mean_of(inner, method)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (3, 64), (48, 2), (10, 64), (1, 1)])
def test_tiny_frames_are_refused(tmp_path: Path, height: int, width: int) -> None:
    write_folder(tmp_path / "tiny", np.zeros((2, height, width, 3), np.uint8))
    (clip,) = find_clips(find_datasets([str(tmp_path / "tiny")], BI, "auto"))
    with pytest.raises(UserError, match=f"tiny: frames of {width}x{height}.* are smaller than SSIM's 11x11"):
        score_clip(clip, Settings(methods=(Bicubic(),), degradation=BI, measures=MEASURES))


def split_in_two(folder: Path, frames: NDArray[np.uint8], split: int) -> Path:
    """A folder in whose numbers one is missing: the frames before ``split``, and those from there on."""
    write_folder(folder, frames, "{:04}.png")
    for number in reversed(range(split, len(frames))):
        (folder / f"{number:04}.png").rename(folder / f"{number + 1:04}.png")
    return folder


@pytest.mark.parametrize(
    ("gap", "lr"),
    [
        ("missing number", "made"),
        ("missing number", "given"),
        ("unreadable picture", "made"),
        ("unreadable picture", "given"),
        ("unreadable LR picture", "given"),
    ],
)
def test_no_window_spans_a_gap(tmp_path: Path, model: str, gap: str, lr: str) -> None:
    """The scores are those of the two parts, each a clip of its own, whose oracle is the evaluation of whole clips."""
    frames, split = frames_of(11, step=3), 4
    parts = frames[:split], frames[split + (gap != "missing number") :]
    lows = [degrade(part, BI) for part in (frames, *parts)]
    if gap == "missing number":
        split_in_two(tmp_path / "whole" / "HR" / "c", frames, split)
        split_in_two(tmp_path / "whole" / "LR" / "c", lows[0], split)
    else:
        write_folder(tmp_path / "whole" / "HR" / "c", frames)
        write_folder(tmp_path / "whole" / "LR" / "c", lows[0])
        side = "LR" if "LR" in gap else "HR"
        (tmp_path / "whole" / side / "c" / f"{split:04}.png").write_bytes(b"no picture")
    for name, part in zip(("first", "second"), parts, strict=True):
        write_folder(tmp_path / name, part)
    both = ["--method", "bicubic", model]
    whole = evaluate(tmp_path / "out", "--data", str(tmp_path / "whole"), "--lr", lr, *both)
    one, other = (
        evaluate(tmp_path / f"out {name}", "--data", str(tmp_path / name), *both) for name in ("first", "second")
    )
    (clip,) = whole["methods"]["bicubic"]["clips"]
    note = {
        "missing number": "its numbers do not go on from 0003.png to 0005.png; no window spans that",
        "unreadable picture": "1 of its pictures cannot be read: 0004.png",
        "unreadable LR picture": "given LR frames: 1 of its pictures cannot be read: 0004.png",
    }
    assert clip["notes"] == [note[gap]]
    for method in ("bicubic", model):
        counts = [mean_of(report, method)["frames"] for report in (one, other)]
        assert mean_of(whole, method)["frames"] == sum(counts) == sum(map(len, parts))
        for metric in ("psnr_rgb", "ssim_y"):
            means = [mean_of(report, method)[metric] for report in (one, other)]
            expected = (counts[0] * means[0] + counts[1] * means[1]) / sum(counts)
            assert mean_of(whole, method)[metric] == pytest.approx(expected, abs=1e-9)
    motions = [
        report["methods"]["bicubic"]["clips"][0]["motion"] * (count - 1)
        for report, count in zip((one, other), counts, strict=True)
    ]
    assert clip["motion"] == pytest.approx(sum(motions) / (sum(counts) - 2), abs=1e-6)


def test_outputs_of_others_keep_their_places_around_an_unreadable_picture(tmp_path: Path) -> None:
    frames = frames_of(6, step=3)
    write_folder(tmp_path / "clip", frames)
    (tmp_path / "clip" / "0002.png").write_bytes(b"")
    write_folder(tmp_path / "made" / "clip", frames)
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", f"frames:X={tmp_path}/made")
    mean = mean_of(report, "X")
    assert (mean["frames"], mean["ssim_rgb"], mean["psnr_rgb"]) == (5, 1.0, None)
    (tmp_path / "made" / "clip" / "0004.png").write_bytes(b"")
    with pytest.raises(UserError, match="made/clip: its picture of frame 4 cannot be read"):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", f"frames:X={tmp_path}/made")


def test_damage_is_said_beside_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "cut.mp4", frames_of(30), faststart=True)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    report = evaluate(tmp_path / "out", "--data", str(video), "--method", "bicubic")
    (clip,) = report["methods"]["bicubic"]["clips"]
    (note,) = clip["notes"]
    assert note.startswith("damaged")
    assert f"{clip['frames']} frames" in note
    assert "of the 30 that its header promises" in note
    assert 0 < clip["frames"] < 30
    assert note in capsys.readouterr().out


def test_the_examples_of_a_clip_are_the_places_where_it_differs_most(tmp_path: Path) -> None:
    """Noise, which bicubic loses, at three places; the fainter noise over the strongest is no place of its own."""
    frames = np.full((3, 400, 400, 3), 128, np.uint8)
    random = np.random.default_rng(0)
    for number, top, left, strength in ((0, 0, 0, 20), (1, 240, 0, 60), (1, 0, 0, 100), (2, 240, 240, 40)):
        noise = random.integers(-strength, strength + 1, (160, 160, 1))
        frames[number, top : top + 160, left : left + 160] = 128 + noise
    write_folder(tmp_path / "clip", frames)
    (clip,) = find_clips(find_datasets([str(tmp_path / "clip")], BI, "auto"))
    found = score_clip(clip, Settings(methods=(Bicubic(),), degradation=BI, measures={})).examples
    places = [(one.frame, one.region.top, one.region.left) for one in found]
    assert places == [(1, 0, 0), (1, 240, 0), (2, 240, 240)]
    for one in found:
        assert one.region.height == one.region.width == 160
        np.testing.assert_array_equal(one.hr, one.region.of(frames[one.frame]))
