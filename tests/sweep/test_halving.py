"""Which validations ASHA compares."""

import dataclasses
from types import SimpleNamespace

import pytest

from mana_dist.sweep.halving import JUDGED, Halving, scheduler
from mana_dist.sweep.trial_messages import Report
from tests.sweep.outcomes import CONFIG


@pytest.mark.parametrize(
    ("output_steps", "rung"),
    [(19, None), (20, 20), (24, 20), (25, None), (39, None), (40, 40), (44, 40), (45, None), (84, 80), (99, None)],
)
def test_a_rung_judges_the_first_validation_after_it(output_steps: int, rung: int | None) -> None:
    config = dataclasses.replace(CONFIG, run=dataclasses.replace(CONFIG.run, validate_every=5))
    report = Report(what="training", step=output_steps + 7, total=100, output_steps=output_steps, psnr=30.0)
    assert Halving(20).rung(report, config) == rung
    assert Halving(20).rung(dataclasses.replace(report, psnr=None), config) is None
    assert Halving(20).rung(dataclasses.replace(report, step=100), config) is None  # nothing is left to save


def test_trials_are_compared_with_those_of_their_seed() -> None:
    asha = scheduler(Halving(grace=10), seeds=[5, 5, 6, 6])
    trials = [SimpleNamespace(trial_id=str(number), config={"number": number}) for number in range(4)]
    for trial in trials:
        asha.on_trial_add(None, trial)
    decisions = [
        asha.on_trial_result(None, trial, {"output_steps": 10, JUDGED: psnr})
        for trial, psnr in zip(trials, (33.0, 32.0, 30.0, 31.0), strict=True)
    ]
    assert decisions == ["CONTINUE", "STOP", "CONTINUE", "CONTINUE"]
    assert asha.on_trial_result(None, trials[0], {"output_steps": 25}) == "CONTINUE"  # a report without a validation
