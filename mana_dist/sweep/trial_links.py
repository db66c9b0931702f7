"""Links from the sweep's page to its trials: to their MLflow runs, or to their folders."""

from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from mana_dist.sweep.trial_outcomes import Outcome
from mana_dist.sweep.trial_plan import TRIALS_FOLDER, Plan


def trial_links(plan: Plan, outcomes: Mapping[str, Outcome], tracking_uri: str, experiment_id: str) -> dict[str, str]:
    """Return the address of each trial that has an outcome, by its name.

    Args:
        plan: of the sweep.
        outcomes: by the trials' names.
        tracking_uri: MLflow's; where it is no server's, or a trial has no run, the folder beside the page is linked.
        experiment_id: of the trials' runs.
    """
    server = urlsplit(tracking_uri)
    host = server.netloc.rpartition("@")[2]  # without a password
    found = {}
    for trial in plan.trials:
        outcome = outcomes.get(trial.name)
        if outcome is None:
            continue
        found[trial.name] = f"{TRIALS_FOLDER}/{quote(trial.name)}/"
        if server.scheme in ("http", "https") and outcome.mlflow_run_id:
            run = f"/experiments/{quote(experiment_id)}/runs/{quote(outcome.mlflow_run_id)}"
            found[trial.name] = urlunsplit((server.scheme, host, server.path.rstrip("/") + "/", "", run))
    return found
