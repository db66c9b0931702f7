"""Early stopping of trials: Ray Tune's ASHA, given only what can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mana_dist.config import Config
from mana_dist.sweep.trial_messages import Report

JUDGED = "judged_psnr"
"""Name of the metric that trials are compared by; only the first validation at each rung has it."""
_STEPS = "output_steps"


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (ASHA) by validation PSNR."""

    grace: int  # output steps that every trial may make (see :class:`Report`)
    factor: int = 2  # at each rung, one of so many trials goes on

    def rung(self, report: Report, config: Config) -> int | None:
        """Return the rung that a report's validation is judged at; None if it has none or is not the first after it.

        A trial that is resumed past a rung is not judged there: others were, earlier in their training. Nor is one at
        its last step, which has nothing left to save.
        """
        steps = report.output_steps
        if report.psnr is None or steps < self.grace or report.step >= report.total:
            return None
        rung = self.grace
        while rung * self.factor <= steps:
            rung *= self.factor
        return rung if steps - rung < config.run.validate_every else None


def scheduler(halving: Halving | None, seeds: Sequence[int]) -> Any:
    """Return Ray Tune's scheduler: one that stops no trial, or ASHA among the trials of each seed.

    Seeds differ in validation PSNR too, so a setting would be stopped for its seed.

    Args:
        halving: None: no trial is stopped.
        seeds: of the trials, by the ``number`` in their configuration.
    """
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if halving is None:
        return FIFOScheduler()

    class PerSeed(FIFOScheduler):  # type: ignore[misc]  # Ray comes without types
        """One ASHA scheduler for each seed."""

        def __init__(self, schedulers: dict[int, Any]) -> None:
            super().__init__()
            self._schedulers = schedulers

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            self._of(trial).on_trial_add(tune_controller, trial)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
            decision: str = self._of(trial).on_trial_result(tune_controller, trial, result)
            return decision

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            self._of(trial).on_trial_complete(tune_controller, trial, result)

        def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
            self._of(trial).on_trial_remove(tune_controller, trial)

        def _of(self, trial: Any) -> Any:
            return self._schedulers[seeds[trial.config["number"]]]

    rule = {"grace_period": halving.grace, "reduction_factor": halving.factor, "max_t": 10**9}  # no end by itself
    made = {seed: ASHAScheduler(time_attr=_STEPS, metric=JUDGED, mode="max", **rule) for seed in seeds}
    return PerSeed(made)
