"""A metric from outside is in every table and file that has metrics."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.evaluate.evaluation_run import values
from mana_dist.evaluate.promote import parse_condition
from mana_dist.evaluate.results import Scores, mean
from mana_dist.metrics import METRICS, Metric
from mana_dist.sweep import trial_outcomes
from mana_dist.sweep.trial_outcomes import Outcome, Status
from tests.evaluate.footage import evaluate, frames_of, write_folder


def worst(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(float) - b).max())


def made(name: str = "worst", side: int = 1) -> Metric:
    return Metric(
        name=name,
        label="worst",
        unit="levels",
        what="the largest difference of a pixel",
        definition="largest absolute difference over all pixels and channels",
        digits=1,
        larger_is_better=False,
        smallest_side=side,
        in_sweeps=False,
        load=lambda weights: worst,
    )


@pytest.fixture
def metric() -> Iterator[Metric]:
    yield METRICS.add(made())
    del METRICS._kinds["worst"]


def test_it_is_scored_written_tabulated_and_may_promote(tmp_path: Path, metric: Metric) -> None:
    frames = frames_of(2)
    write_folder(tmp_path / "clip", frames)
    report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic")
    assert report["protocol"]["worst"] == metric.definition
    (clip,) = report["methods"]["bicubic"]["clips"]
    assert list(clip)[2:7] == ["psnr_rgb", "ssim_rgb", "lpips", "psnr_y", "ssim_y"]
    assert 0 < clip["worst"] == report["methods"]["bicubic"]["mean"]["worst"]
    for file, column in (("report.md", metric.heading), ("report.html", metric.what)):
        text = (tmp_path / "out" / file).read_text()
        assert column in text
        assert f"{clip['worst']:.1f}" in text
        assert metric.definition in text
    assert parse_condition("worst < @champion").metric is metric
    assert dict(values(Scores({"worst": 3.0, "lpips": None}, frames=2))) == {"worst": 3.0, "frames": 2.0}
    assert mean([Scores({"worst": 3.0}, 1), Scores({"worst": 4.0}, 1)])[metric] == 3.5


def test_frames_that_are_too_small_for_it_have_no_value_and_a_note(tmp_path: Path) -> None:
    METRICS.add(made("worst", side=64))
    try:
        write_folder(tmp_path / "clip", frames_of(1))
        report = evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic")
    finally:
        del METRICS._kinds["worst"]
    (clip,) = report["methods"]["bicubic"]["clips"]
    assert clip["worst"] is None
    assert "no worst: it needs 64x64" in clip["notes"]


def test_a_ledger_from_before_the_metric_or_with_another_still_counts(tmp_path: Path, metric: Metric) -> None:
    values = {"psnr_rgb": 30.0, "ssim_rgb": 0.9, "lpips": None, "psnr_y": 31.0, "ssim_y": 0.91}
    scores = Scores(values, frames=3)
    outcome = Outcome(status=Status.FINISHED, scores={"a": scores}, mean=scores)
    trial_outcomes.write(str(tmp_path), "x", outcome)
    file = tmp_path / "ledger" / "x.json"
    content = json.loads(file.read_text())
    assert content["mean"] == {**values, "frames": 3}
    assert content["scores"] == [{"dataset": "a", "scores": {**values, "frames": 3}}]
    content["mean"]["gone"] = 1.0
    file.write_text(json.dumps(content))
    found = trial_outcomes.read(str(tmp_path), "x")
    assert found is not None
    assert found.mean is not None
    assert found.mean[metric] is None
    assert found.mean.psnr_rgb == 30


def test_a_metric_that_lacks_a_part_is_none() -> None:
    with pytest.raises(TypeError, match="larger_is_better"):
        Metric(name="half", label="", unit="", what="", definition="", digits=1)  # type: ignore[call-arg]
