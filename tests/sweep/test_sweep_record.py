"""What a sweep keeps in its folder holds no password, and a new password is no other sweep."""

import dataclasses
from pathlib import Path

import pytest

from mana_dist.config import MlflowConfig
from mana_dist.errors import UserError
from mana_dist.sweep import sweep_record, trial_outcomes
from mana_dist.sweep.config import Judging
from mana_dist.sweep.sweep_record import Record
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import left_to_do, make_plan
from mana_dist.sweep.variations import memory_sweep
from tests.sweep.outcomes import CONFIG

URI = "http://ann:s3cret@host:5000"
JUDGING = Judging(data=("http://ann:s3cret@host/a.mp4",))


def begun(uri: str = URI) -> Record:
    config = dataclasses.replace(CONFIG, mlflow=MlflowConfig(tracking_uri=uri))
    return Record(
        kind="sweep-memory",
        tracking_uri=uri,
        mlflow_run_id="r",
        config=sweep_record.flat(config),
        settings=("a",),
        samples=1,
    )


def test_the_record(tmp_path: Path) -> None:
    sweep_record.save(str(tmp_path), begun())
    assert "s3cret" not in (tmp_path / sweep_record.FILE).read_text()
    found = sweep_record.load(str(tmp_path))
    assert found is not None
    sweep_record.check_same("s", found, begun(URI.replace("s3cret", "another")))
    with pytest.raises(UserError, match=r"mlflow\.tracking_uri http://\*\*\*@host:5000, now it is http://\*\*\*@other"):
        sweep_record.check_same("s", found, begun("http://ann:s3cret@other:5000"))


def test_the_record_of_an_older_version(tmp_path: Path) -> None:
    older = dataclasses.replace(begun(), config={**begun().config, "mlflow.tracking_uri": URI})
    sweep_record.check_same("s", older, begun())
    new = (".decay", ".warmup", ".loss", ".reverse", ".ema", ".init", ".keep_best")
    fewer = {key: value for key, value in older.config.items() if not key.endswith(new)}
    sweep_record.check_same("s", dataclasses.replace(older, config=fewer), begun())


def test_the_ledger_and_what_is_left_to_do(tmp_path: Path) -> None:
    plan = make_plan(CONFIG, memory_sweep(CONFIG, [0]), samples=1)
    (trial,) = plan.trials
    trial_outcomes.write(
        str(tmp_path), trial.name, Outcome(status=Status.FINISHED, judging=JUDGING, reason=f"at {URI}")
    )
    (file,) = (tmp_path / "ledger").iterdir()
    assert "s3cret" not in file.read_text()
    found = trial_outcomes.read(str(tmp_path), trial.name)
    assert found is not None
    assert left_to_do(plan.trials, {trial.name: found}, JUDGING) == ()
    other = Judging(data=("http://ann:s3cret@host/b.mp4",))
    assert left_to_do(plan.trials, {trial.name: found}, other) == plan.trials
