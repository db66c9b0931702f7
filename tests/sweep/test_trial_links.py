"""Where the rows of a sweep's page lead."""

import dataclasses

import pytest

from mana_dist.sweep import publish
from mana_dist.sweep.results_table import make_table
from mana_dist.sweep.trial_links import trial_links
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import make_plan
from mana_dist.sweep.variations import memory_sweep
from tests.sweep.outcomes import CONFIG, finished

SWEEP = memory_sweep(CONFIG, (0, 4))
PLAN = make_plan(CONFIG, SWEEP, samples=2)
OUTCOMES = {
    "none-seed5": dataclasses.replace(finished(30.0), mlflow_run_id="ab12"),
    "none-seed6": Outcome(status=Status.FAILED, reason="out of memory"),
}


@pytest.mark.parametrize(
    ("uri", "first"),
    [
        ("http://localhost:5000", "http://localhost:5000/#/experiments/7/runs/ab12"),
        ("https://anne:secret@mlflow.example/at/here/", "https://mlflow.example/at/here/#/experiments/7/runs/ab12"),
        ("sqlite:///mlflow.db", "trials/none-seed5/"),
        ("postgresql://anne:secret@host/db", "trials/none-seed5/"),
    ],
)
def test_trials_lead_to_their_runs_on_a_server_and_else_to_their_folders(uri: str, first: str) -> None:
    links = trial_links(PLAN, OUTCOMES, uri, "7")
    assert links == {"none-seed5": first, "none-seed6": "trials/none-seed6/"}  # which has no run
    table = make_table(SWEEP, PLAN, OUTCOMES, links)
    page = publish.page(table, {}, ())
    assert f'<a href="{first}">seed 5</a>, <a href="trials/none-seed6/">seed 6</a>' in page
    assert page.count("<a href=") == 2 + 1  # and the section's
    assert "secret" not in page


def test_without_links_there_is_no_column_for_them() -> None:
    page = publish.page(make_table(SWEEP, PLAN, OUTCOMES), {}, ())
    assert ">trials<" not in page
