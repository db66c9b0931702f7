"""Neighbour gain and match error against loops that build every window, and where they are shown."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mana_dist.data.degradation import BI, degrade
from mana_dist.evaluate import report
from mana_dist.evaluate.evaluation_run import values
from mana_dist.evaluate.neighbours import Sample, SampledFrame, mean_gain, sampled_clips
from mana_dist.evaluate.report import markdown
from mana_dist.evaluate.results import Scores, mean
from mana_dist.evaluate.scored_clips import Clip
from mana_dist.evaluate.subset import ALL
from mana_dist.model import Mana
from mana_dist.model.match_error import match_error
from mana_dist.registry import model_folder
from tests.evaluate.evaluations import clip, evaluation, page_of, scores
from tests.evaluate.footage import CONFIG, Frames, evaluate, frames_of, mean_of, write_folder

WRITTEN = "neighbour_gain"


def psnr_by_hand(output: torch.Tensor, hr: NDArray[np.uint8], border: int) -> float:
    """PSNR of a network's (1, 3, H, W) output, quantised, inside the border."""
    frame = np.floor(np.clip(output[0].permute(1, 2, 0).numpy(), 0, 1) * 255 + 0.5)
    inner = slice(border, -border or None)
    return float(10 * np.log10(255**2 / np.mean((frame - hr)[inner, inner] ** 2)))


def gain_by_hand(network: Mana, frames: Frames, positions: list[int], border: int = 0) -> float:
    """Windows of three mirrored frames, and of the middle one three times."""
    low = [torch.from_numpy(degrade(frame, BI)).permute(2, 0, 1) / 255 for frame in frames]
    gains = []
    with torch.no_grad():
        for position in positions:
            before, after = abs(position - 1), position + 1 if position + 1 < len(low) else position - 1
            real = network(torch.stack([low[before], low[position], low[after]])[None])
            alone = network(torch.stack([low[position]] * 3)[None])
            gains.append(psnr_by_hand(real, frames[position], border) - psnr_by_hand(alone, frames[position], border))
    return sum(gains) / len(gains)


def test_it_is_that_of_windows_of_one_frame(tmp_path: Path, model: str) -> None:
    clips = {"long": frames_of(14, 0, step=3), "short": frames_of(4, 1, step=3)}
    for name, frames in clips.items():
        write_folder(tmp_path / "data" / name, frames)
    write_folder(tmp_path / "truth" / "long", clips["long"])
    write_folder(tmp_path / "truth" / "short", clips["short"])
    methods = ["--method", "bicubic", model, f"frames:X={tmp_path}/truth"]
    found = evaluate(tmp_path / "out", "--data", str(tmp_path / "data"), *methods, "--border-crop", "2")
    network = model_folder.load(model)[0]
    expected = [
        gain_by_hand(network, clips["long"], [4, 12], border=2),
        gain_by_hand(network, clips["short"], [2], border=2),
    ]
    assert all(abs(value) > 0.01 for value in expected)
    by_clip = {entry["name"]: entry for entry in found["methods"][model]["clips"]}
    assert [by_clip[name][WRITTEN] for name in clips] == pytest.approx(expected, abs=1e-3)
    assert mean_of(found, model)[WRITTEN] == pytest.approx(sum(expected) / 2, abs=1e-3)
    assert found["methods"][model]["datasets"]["data"][WRITTEN] == mean_of(found, model)[WRITTEN]
    for other in ("bicubic", "X"):
        assert WRITTEN not in mean_of(found, other)
        assert all(WRITTEN not in entry for entry in found["methods"][other]["clips"])
    assert "every 8th scored frame from the 5th on" in found["protocol"][WRITTEN]
    assert f"{mean_of(found, model)[WRITTEN]:+.3f}" in (tmp_path / "out" / "report.html").read_text()


def test_of_a_subset_it_is_taken_on_what_is_scored(tmp_path: Path, model: str) -> None:
    frames = frames_of(9, step=3)
    write_folder(tmp_path / "clip", frames)
    arguments = ["--data", str(tmp_path / "clip"), "--method", model, "--frame-subset", "centre"]
    found = mean_of(evaluate(tmp_path / "out", *arguments), model)[WRITTEN]
    assert found == pytest.approx(gain_by_hand(model_folder.load(model)[0], frames, [4]), abs=1e-3)


@pytest.mark.parametrize("attention", ["one_hot", "phases", "dense"])
def test_match_error_is_that_of_the_frames_before_the_middle_of_the_sample(tmp_path: Path, attention: str) -> None:
    """The error itself has its own literal oracle, in tests/model."""
    config = replace(CONFIG, model=replace(CONFIG.model, attention=attention))
    folder = str(tmp_path / "model")
    model_folder.save(folder, Mana(config.model).state_dict(), config)
    frames = frames_of(14, 0, step=3)
    write_folder(tmp_path / "data" / "long", frames)
    write_folder(tmp_path / "data" / "short", frames[:2])
    found = evaluate(tmp_path / "out", "--data", str(tmp_path / "data"), "--method", "bicubic", folder)
    low = torch.from_numpy(degrade(frames[[10, 12, 11]], BI)).permute(0, 3, 1, 2)[None] / 255  # of frames 4 and 12
    expected = match_error(model_folder.load(folder)[0], low)
    long, short = found["methods"][folder]["clips"]
    if expected is None:
        assert attention == "dense"
        assert "match_error" not in long
        return
    assert long["match_error"] == pytest.approx(expected.ratio, rel=1e-3)
    assert "match_error" not in short  # its only frame with one before it has not two
    assert mean_of(found, folder)["match_error"] == long["match_error"]
    assert "match_error" not in mean_of(found, "bicubic")
    assert "match error" in (tmp_path / "out" / "report.md").read_text()


def test_no_match_spans_a_gap(tmp_path: Path, model: str) -> None:
    frames = frames_of(5, step=3)
    write_folder(tmp_path / "clip", frames)
    write_folder(tmp_path / "gap", frames)
    (tmp_path / "gap" / "0004.png").rename(tmp_path / "gap" / "0005.png")
    for name in ("clip", "gap"):
        mean_ = mean_of(evaluate(tmp_path / f"{name} out", "--data", str(tmp_path / name), "--method", model), model)
        assert ("match_error" in mean_) == (name == "clip")


@pytest.mark.parametrize("change", [{"frames": 1}, {"attention": "none"}], ids=str)
def test_a_model_that_sees_single_frames_has_none(tmp_path: Path, change: dict[str, Any]) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, **change))
    folder = str(tmp_path / "model")
    model_folder.save(folder, Mana(config.model).state_dict(), config)
    write_folder(tmp_path / "clip", frames_of(2))
    found = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", folder)
    assert WRITTEN not in mean_of(found, folder)


def test_the_sample_is_that_of_the_protocol_at_any_length() -> None:
    sample = Sample()
    for length in range(1, 500):
        frame = np.full((1, 1, 3), length - 1, np.uint16)
        sample.add(SampledFrame(frame, (), frame, ()))  # type: ignore[arg-type]  # a number in the place of a picture
        strides = (8 * 2**doubled for doubled in range(20))
        expected = next(list(range(4, length, stride)) for stride in strides if len(range(4, length, stride)) <= 4)
        assert [int(entry.lr[0, 0, 0]) for entry in sample.frames()] == (expected or [length // 2])


def test_frames_that_equal_the_truth_do_not_count() -> None:
    assert mean_gain([(31.0, 30.5), (30.0, 30.25), (math.inf, 40.0), (math.inf, math.inf)]) == 0.125
    assert mean_gain([(math.inf, math.inf)]) is None
    assert mean_gain([]) is None


def test_of_many_clips_a_hundred_of_each_dataset_are_looked_at() -> None:
    def clips(dataset: str, count: int) -> list[Clip]:
        made: dict[str, Any] = {"path": "", "uri": "", "lr": None, "start": 0, "stop": None, "total": 7}
        names = [f"{dataset}{number}" for number in range(count)]
        return [Clip(name=name, dataset=dataset, subset=ALL, exact=True, **made) for name in names]

    found = sampled_clips([*clips("few", 3), *clips("many", 991)])
    assert found == {"few0", "few1", "few2", *(f"many{number}" for number in range(0, 991, 10))}


def gained(psnr: float, gain: float | None) -> Scores:
    return replace(scores(psnr), sampled={} if gain is None else {WRITTEN: gain})


def test_a_mean_is_that_of_the_clips_that_have_one() -> None:
    found = mean([gained(30, 0.25), gained(31, None), gained(32, 0.5)])
    assert (found.psnr_rgb, found.sampled) == (31, {WRITTEN: 0.375})
    assert mean([gained(30, None)]).sampled == {}


def test_files_and_mlflow_have_it_where_it_was_taken() -> None:
    taken, not_taken = gained(30, 0.25), gained(30, None)
    assert taken.plain()[WRITTEN] == 0.25
    assert WRITTEN not in not_taken.plain()
    assert Scores.from_plain(taken.plain()) == taken
    assert Scores.from_plain(not_taken.plain()) == not_taken
    assert dict(values(taken))[WRITTEN] == 0.25
    assert WRITTEN not in dict(values(not_taken))


def test_tables_have_a_column_of_it_where_it_was_taken() -> None:
    heading = "neighbour gain (dB)"
    without = evaluation(("bicubic", "MANA"), clip("a", scores(20), scores(21)))
    assert heading not in report.table(without) + markdown.report(without, []) + page_of(without)
    taken = evaluation(
        ("bicubic", "MANA"),
        clip("a", scores(20), gained(21, -0.0004)),
        clip("b", scores(20), gained(21, 0.0044)),
    )
    head, _, bicubic, mana = report.table(taken).split("\n")[2:6]
    assert [line.split("|")[-2].strip() for line in (head, bicubic, mana)] == [heading, "\N{EN DASH}", "+0.002"]
    rows = [
        line.split("|") for line in markdown.report(taken, []).split("\n## Clips\n")[1].split("\n") if "MANA" in line
    ]
    assert [row[-4].strip() for row in rows] == ["+0.000", "+0.004"]
    matched = clip("a", scores(20), replace(scores(21), sampled={"match_error": 3.456}))
    head, _, bicubic, mana = report.table(evaluation(("bicubic", "MANA"), matched)).split("\n")[2:6]
    assert [line.split("|")[-2].strip() for line in (head, bicubic, mana)] == ["match error", "\N{EN DASH}", "3.46"]
    page = page_of(taken)
    assert page.replace("<br>", " ").count("neighbour gain (dB)</th>") == 2
    assert '<th colspan="8" scope="rowgroup">' in page
