"""Table 3 from outcomes, by hand."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from mana_dist.errors import UserError
from mana_dist.evaluate.report.metrics_table import NOTHING
from mana_dist.evaluate.results import Scores
from mana_dist.sweep import publish, sweep_plots, trial_outcomes
from mana_dist.sweep.results_table import best, make_table, to_csv, to_markdown_text
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import make_plan
from mana_dist.sweep.variations import alignment_sweep, memory_sweep, window_sweep
from tests.sweep.outcomes import CONFIG, finished

SWEEP = memory_sweep(CONFIG, (0, 4, 8))


def test_a_row_per_setting_with_the_best_two_marked() -> None:
    plan = make_plan(CONFIG, SWEEP, samples=1)
    outcomes = {"none-seed5": finished(31.0, 0.5), "4-seed5": finished(33.0, 0.75), "8-seed5": finished(32.0)}
    assert to_markdown_text(make_table(SWEEP, plan, outcomes)) == (
        "**best**, _second best_; ↑ larger is better, ↓ smaller is better; one seed each: --samples 3 would tell how "
        "much of a difference is chance\n\n"
        "|  | a PSNR (dB) ↑ | a SSIM ↑ | a LPIPS ↓ | neighbour gain (dB) | parameters | s / step | GiB / worker |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        f"| No_Mem | 31.00 | 0.3100 | **0.3100** | {NOTHING} | 0.01 M | 0.500 | 1.00 |\n"
        f"| N = 4 | **33.00** | **0.3300** | 0.3300 | {NOTHING} | 0.01 M | 0.750 | 1.00 |\n"
        f"| N = 8 | _32.00_ | _0.3200_ | _0.3200_ | {NOTHING} | 0.01 M | 1.00 | 1.00 |\n"
    )


def test_several_seeds_give_mean_and_spread_and_several_datasets_a_mean_over_all() -> None:
    sweep = memory_sweep(CONFIG, (0, 4))
    plan = make_plan(CONFIG, sweep, samples=2)
    outcomes = {
        "none-seed5": finished(30.0, other=20.0),
        "none-seed6": finished(32.0, other=20.0),
        "4-seed5": finished(30.0, other=24.0),
        "4-seed6": finished(30.0, other=24.5),
    }
    table = make_table(sweep, plan, outcomes)
    assert table.datasets == ("a", "b", "mean over all clips")
    first = table.rows[0].values[0]
    assert first.mean == 31.0
    assert first.spread == pytest.approx(math.sqrt(2))
    text = to_markdown_text(table)
    assert "| No_Mem | **31.00 ± 1.41** | **0.3100 ± 0.0141** | _0.3100 ± 0.0141_ | _20.00 ± 0.00_ |" in text
    assert "mean ± standard deviation over 2 seeds" in text
    chosen = best(table, outcomes)
    assert chosen is not None
    assert chosen.name == "4-seed6"


def test_what_neighbours_brought_stands_beside() -> None:
    sweep = alignment_sweep(CONFIG, ("phases", "none"))
    outcomes = {"phases-seed5": finished(31.0), "none-seed5": finished(30.0)}
    mean = outcomes["phases-seed5"].mean
    assert mean is not None
    gained = dataclasses.replace(mean, sampled={"neighbour_gain": 0.375})
    outcomes["phases-seed5"] = dataclasses.replace(outcomes["phases-seed5"], mean=gained)
    table = make_table(sweep, make_plan(CONFIG, sweep, samples=1), outcomes)
    rows = [
        line.split(" | ") for line in to_markdown_text(table).splitlines() if line.startswith(("| phases", "| none"))
    ]
    assert [row[4] for row in rows] == ["+0.38", NOTHING]
    assert "neighbour gain (dB)" in to_csv(table)
    assert "+0.38" in publish.page(table, {}, ())


def test_a_setting_without_all_its_seeds_says_so_and_takes_no_place() -> None:
    sweep = memory_sweep(CONFIG, (0, 4))
    plan = make_plan(CONFIG, sweep, samples=2)
    stopped = Outcome(status=Status.STOPPED, reason="early, by ASHA")
    outcomes = {
        "none-seed5": finished(30.0),
        "none-seed6": finished(math.inf),
        "4-seed5": finished(40.0),
        "4-seed6": stopped,
    }
    table = make_table(sweep, plan, outcomes)
    text = to_markdown_text(table)
    assert "| No_Mem | ∞ |" in text
    assert "| N = 4 (1 of 2 seeds) | 40.00 |" in text
    assert "* N = 4: seed 6 stopped: early, by ASHA" in text
    chosen = best(table, outcomes)
    assert chosen is not None
    assert chosen.name == "none-seed6"
    alone = best(make_table(sweep, plan, {"4-seed5": finished(40.0)}), {"4-seed5": finished(40.0)})
    assert alone is not None
    assert alone.name == "4-seed5"


def test_what_failed_is_reported_and_takes_nothing_down() -> None:
    sweep = window_sweep(CONFIG, (3, 5, 13), (7,))
    plan = make_plan(CONFIG, sweep, samples=1)
    failed = Outcome(status=Status.FAILED, reason="out of | memory")
    outcomes = {"3x3x7-seed5": finished(31.0), "5x5x7-seed5": failed}
    table = make_table(sweep, plan, outcomes)
    text = to_markdown_text(table)
    assert f"| 5x5, 7 frames |{f' {NOTHING} |' * 4} 0.01 M |{f' {NOTHING} |' * 2}" in text
    assert "* 5x5, 7 frames: seed 5 failed: out of \\| memory\n" in text
    assert "* 13x13, 7 frames: failed: a window of 13x13 is larger than the crops of data.crop 12\n" in text
    lines = to_csv(table).splitlines()
    assert lines[0].startswith("setting,seeds,a PSNR (dB),a PSNR (dB) spread,a SSIM,")
    assert lines[1].startswith('"3x3, 7 frames",1,31.0,,0.31,,0.31,,1.0,,')
    assert best(table, {**outcomes}) == plan.trials[0]
    assert best(make_table(sweep, plan, {}), {}) is None


def test_the_report_is_written_even_of_nothing(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, SWEEP, samples=1)
    nothing = publish.publish(str(tmp_path / "none"), SWEEP, make_table(SWEEP, plan, {}), ())
    assert {Path(file).name for file in nothing} == {"report.html", "table.md", "table.csv"}
    some = {"none-seed5": finished(31.0, 0.5), "8-seed5": finished(33.0, 0.75)}
    files = publish.publish(str(tmp_path / "some"), SWEEP, make_table(SWEEP, plan, some), ("told",))
    assert {Path(file).name for file in files} == {
        *("report.html", "table.md", "table.csv", "quality.svg", "time_per_step.svg", "memory.svg")
    }
    assert ">N = 8</text>" in (tmp_path / "some" / "quality.svg").read_text()
    page = (tmp_path / "some" / "report.html").read_text()
    assert page.count("<svg ") == 3
    assert "told" in page


def test_a_plot_has_a_point_per_setting_and_the_front_as_a_line() -> None:
    plan = make_plan(CONFIG, SWEEP, samples=1)
    outcomes = {"none-seed5": finished(31.0, 0.5), "4-seed5": finished(30.0, 0.6), "8-seed5": finished(33.0, 0.75)}
    figure = sweep_plots.step_time(make_table(SWEEP, plan, outcomes))
    assert figure is not None
    (plot,) = figure.axes
    drawn = sorted((x, y) for series in plot.collections for x, y in np.asarray(series.get_offsets()))
    assert drawn == [(0.5, 31.0), (0.6, 30.0), (0.75, 33.0)]
    (front,) = plot.lines
    assert np.asarray(front.get_xydata()).tolist() == [[0.5, 31.0], [0.75, 33.0]]


def test_the_pareto_front_holds_what_nothing_beats_at_no_more_cost() -> None:
    assert sweep_plots.pareto([(1, 30), (2, 29), (2, 31), (3, 31), (4, 32)]) == [(1, 30), (2, 31), (4, 32)]


def test_the_ledger_gives_back_what_was_noted(tmp_path: Path) -> None:
    values = {"psnr_rgb": math.inf, "ssim_rgb": 1.0, "lpips": None, "psnr_y": math.inf, "ssim_y": 1.0}
    infinite = Scores(values, frames=3)
    outcome = Outcome(status=Status.FINISHED, scores={"a": infinite}, mean=infinite, seconds=1.5)
    assert trial_outcomes.read(str(tmp_path), "x") is None
    trial_outcomes.write(str(tmp_path), "x", outcome)
    assert trial_outcomes.read(str(tmp_path), "x") == outcome
    (tmp_path / "ledger" / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json is damaged"):
        trial_outcomes.read(str(tmp_path), "x")
