"""What a sweep runs, and what is left of it."""

import dataclasses
import json
from pathlib import Path

import pytest

from mana_dist.config import Config
from mana_dist.data.order import VERSION
from mana_dist.errors import UserError
from mana_dist.storage.lease import Fence
from mana_dist.sweep import sweep_record
from mana_dist.sweep.config import Judging
from mana_dist.sweep.run_sweep import grace
from mana_dist.sweep.sweep_record import Record
from mana_dist.sweep.trial import last_stage, output_steps
from mana_dist.sweep.trial_messages import Report, Task, from_line, parse_report, report_line, to_line
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import bases_left, left_to_do, make_plan, shared_steps, total_steps
from mana_dist.sweep.variations import alignment_sweep, memory_sweep, window_sweep
from tests.sweep.outcomes import CONFIG, finished

FAILED = Outcome(status=Status.FAILED, reason="no")


def with_run(**changes: object) -> Config:
    return dataclasses.replace(CONFIG, run=dataclasses.replace(CONFIG.run, **changes))  # type: ignore[arg-type]


def test_the_default_memory_sweep_is_table_3() -> None:
    sweep = memory_sweep(CONFIG)
    assert [setting.label for setting in sweep.settings] == ["No_Mem", "N = 128", "N = 256", "N = 512", "N = 1024"]
    assert [setting.model.memory_slots for setting in sweep.settings if setting.model] == [0, 128, 256, 512, 1024]


def test_the_default_window_sweep_varies_one_thing_at_a_time() -> None:
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, window=9),
        data=dataclasses.replace(CONFIG.data, crop=64),
    )
    settings = window_sweep(config).settings
    pairs = [(setting.model.window, setting.model.frames) for setting in settings if setting.model]
    assert pairs == [(5, 7), (7, 7), (9, 7), (11, 7), (13, 7), (9, 3), (9, 5)]
    assert len(window_sweep(config, grid=True).settings) == 15


def test_the_alignment_sweep_varies_the_kind_alone() -> None:
    settings = alignment_sweep(CONFIG).settings
    assert [setting.label for setting in settings] == ["one_hot", "softmax_window", "dense", "phases", "none"]
    assert [dataclasses.replace(setting.model, attention="one_hot") for setting in settings if setting.model] == (
        [CONFIG.model] * 5
    )
    # The plots' place of each is its size: that of the one without neighbours is the smallest.
    assert min(settings, key=lambda setting: setting.x).label == "none"
    (wrong,) = alignment_sweep(CONFIG, ("phase",)).settings
    assert wrong.problem.endswith("got phase; did you mean phases?")


def test_a_setting_that_cannot_be_is_left_out_with_its_reason() -> None:
    sweep = window_sweep(CONFIG, windows=(3, 4, 13), frames=(7,))
    plan = make_plan(CONFIG, sweep, samples=1)
    assert [trial.name for trial in plan.trials] == ["3x3x7-seed5"]
    assert [setting.problem for setting in plan.failed] == [
        "model.window must be odd and positive, got 4",
        "a window of 13x13 is larger than the crops of data.crop 12",
    ]


def test_memory_trials_share_a_stage_1_per_seed() -> None:
    plan = make_plan(CONFIG, memory_sweep(CONFIG, (0, 4)), samples=2)
    assert [base.name for base in plan.bases] == ["stage1-seed5", "stage1-seed6"]
    assert [trial.name for trial in plan.trials] == ["none-seed5", "4-seed5", "none-seed6", "4-seed6"]
    assert [trial.base.name for trial in plan.trials if trial.base] == ["stage1-seed5"] * 2 + ["stage1-seed6"] * 2
    assert [total_steps(base.config) for base in plan.bases] == [10, 10]
    assert plan.bases[0].config.model.memory_slots == 0
    assert [total_steps(trial.config) for trial in plan.trials] == [16, 20, 16, 20]
    assert {trial.config.run.storage for trial in (*plan.bases, *plan.trials)} == {"/runs/sweep/trials"}
    assert [trial.config.run.seed for trial in plan.trials] == [5, 5, 6, 6]
    assert shared_steps(plan) == 4 * 10 - 2 * 10


@pytest.mark.parametrize("kind", ["one setting", "windows"])
def test_nothing_is_shared_where_nothing_is_saved_or_stage_1_differs(kind: str) -> None:
    sweep = memory_sweep(CONFIG, (4,)) if kind == "one setting" else window_sweep(CONFIG, (3, 5), (7,))
    plan = make_plan(CONFIG, sweep, samples=1)
    assert plan.bases == ()
    assert all(trial.base is None for trial in plan.trials)


def test_finished_and_stopped_trials_are_not_done_again_failed_ones_are() -> None:
    plan = make_plan(CONFIG, memory_sweep(CONFIG, (0, 4, 8)), samples=1)
    stopped = Outcome(status=Status.STOPPED)
    outcomes = {"none-seed5": finished(30), "4-seed5": FAILED, "8-seed5": stopped}
    assert [trial.name for trial in left_to_do(plan.trials, outcomes)] == ["4-seed5"]
    assert [base.name for base in bases_left(plan, outcomes)] == ["stage1-seed5"]
    assert bases_left(plan, outcomes | {"stage1-seed5": finished(1)}) == ()
    assert bases_left(plan, outcomes | {"4-seed5": finished(30)}) == ()


def test_output_steps_leave_stage_2_out() -> None:
    assert [output_steps(CONFIG, step) for step in (0, 7, 10, 12, 14, 15, 20)] == [0, 7, 10, 10, 10, 11, 16]


def test_asha_waits_until_settings_can_differ() -> None:
    assert grace(CONFIG, memory_sweep(CONFIG)) == 12
    assert grace(CONFIG, window_sweep(CONFIG)) == 2


def test_the_time_of_a_step_is_the_last_stages_median() -> None:
    stage_at = [(5, 1.0), (10, 1.0), (15, 3.0), (20, 3.0), (25, 3.0)]
    rate_at = [(5, 100.0), (10, 100.0), (15, 1.0), (20, 8.0), (25, 8.0)]
    assert last_stage(stage_at, rate_at, batch_size=4) == 0.5
    assert last_stage([], [], batch_size=4) is None


def test_a_task_and_a_report_cross_the_process_border() -> None:
    trial = make_plan(CONFIG, memory_sweep(CONFIG, (0, 4)), samples=1).trials[1]
    task = Task(
        trial=dataclasses.replace(trial, setting=None),
        sweep=Fence("s3://b/x", "sweep x", "one"),
        parent="p",
        tracking_uri="sqlite:///m",
        judging=Judging(data=("a", "b"), frames=":3"),
    )
    assert from_line(to_line(task)) == task
    report = Report(what="training", step=3, total=20, psnr=30.0)
    assert parse_report(report_line(report)) == report
    assert parse_report("checkpoint at step 3") is None


def test_a_sweep_goes_on_with_more_settings_but_not_with_another_training() -> None:
    old = begun(CONFIG)
    sweep_record.check_same("s", old, dataclasses.replace(begun(with_run(workers=4, seed=9)), samples=2))
    sweep_record.check_same("s", old, dataclasses.replace(old, settings=("N = 8", "No_Mem", "N = 4")))
    with pytest.raises(UserError, match=r"sweep s has No_Mem, N = 4 with 1 seed\(s\) each; give all of them again"):
        sweep_record.check_same("s", old, dataclasses.replace(old, settings=("N = 4",)))
    with pytest.raises(UserError, match="give all of them again"):
        sweep_record.check_same("s", dataclasses.replace(old, samples=3), old)
    other = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, crop=16))
    with pytest.raises(UserError, match=r"sweep s was begun with data\.crop 12, now it is 16"):
        sweep_record.check_same("s", old, begun(other))
    with pytest.raises(UserError, match=r"mlflow\.tracking_uri u, now it is v"):
        sweep_record.check_same("s", old, dataclasses.replace(old, tracking_uri="v"))


def test_a_record_comes_back_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert sweep_record.load(str(tmp_path)) is None
    sweep_record.save(str(tmp_path), begun(CONFIG))
    assert sweep_record.load(str(tmp_path)) == begun(CONFIG)
    (tmp_path / sweep_record.FILE).write_text('{"kind": "sweep-memory"}')
    with pytest.raises(UserError, match=r"sweep\.json is damaged or of another version"):
        sweep_record.load(str(tmp_path))


def test_a_sweep_of_another_sample_order_is_refused(tmp_path: Path) -> None:
    """Its finished trials and new ones could not be compared."""
    sweep_record.save(str(tmp_path), begun(CONFIG))
    file = tmp_path / sweep_record.FILE
    values = json.loads(file.read_text())
    assert values.pop("order") == VERSION
    file.write_text(json.dumps(values))  # as before there were versions
    loaded = sweep_record.load(str(tmp_path))
    assert loaded is not None
    with pytest.raises(UserError, match="sweep s was begun with version 1 of the sample order"):
        sweep_record.check_same("s", loaded, begun(CONFIG))


def test_another_judging_leaves_the_evaluation_to_do_and_no_stage_1() -> None:
    plan = make_plan(CONFIG, memory_sweep(CONFIG, (0, 4)), samples=1)
    one, other = Judging(data=("a",)), Judging(data=("a",), lpips_trunk="alex.safetensors")
    outcomes = {trial.name: dataclasses.replace(finished(30), judging=one) for trial in plan.trials}
    assert left_to_do(plan.trials, outcomes, one) == ()
    assert left_to_do(plan.trials, outcomes, other) == plan.trials
    assert bases_left(plan, outcomes) == ()


def begun(config: Config) -> Record:
    return Record(
        kind="sweep-memory",
        tracking_uri="u",
        mlflow_run_id="1",
        config=sweep_record.flat(config),
        settings=("No_Mem", "N = 4"),
        samples=1,
    )
