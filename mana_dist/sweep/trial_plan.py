"""The plan of a sweep: a named training for each setting and seed, and which of them are left to do."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.config import Config, StageConfig
from mana_dist.model.config import ModelConfig
from mana_dist.sweep.config import Judging
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.variations import Setting, Sweep
from mana_dist.train.run_record import run_folder
from mana_dist.train.schedule import stages

TRIALS_FOLDER = "trials"


@dataclass(frozen=True)
class Trial:
    """A training of a sweep."""

    name: str  # the run's
    config: Config  # of the training; its run's folder lies in the sweep's
    setting: Setting | None  # the row that it belongs to; None for a shared stage 1
    base: "Trial | None" = None  # the training of the stage 1 that it continues; None if it trains its own

    @property
    def seed(self) -> int:
        """Seed of its weights and its data."""
        return self.config.run.seed


@dataclass(frozen=True)
class Plan:
    """All trainings of a sweep."""

    bases: tuple[Trial, ...]  # shared first stages, one per seed; trained before the trials
    trials: tuple[Trial, ...]  # settings, seed by seed, in the table's order
    failed: tuple[Setting, ...]  # settings that cannot be trained at all


def make_plan(config: Config, sweep: Sweep, samples: int) -> Plan:
    """Return the trainings of ``sweep`` with ``samples`` seeds per setting, from ``config``'s seed on."""
    possible = [setting for setting in sweep.settings if setting.model is not None]
    seeds = range(config.run.seed, config.run.seed + samples)
    shared = sweep.shares_stage1 and len(possible) > 1 and config.schedule.stage1.steps > 0
    bases = {seed: _base(config, seed) for seed in seeds} if shared else {}
    trials = [
        Trial(name, _config(config, setting.model, name, seed), setting, bases.get(seed))
        for seed in seeds
        for setting in possible
        if setting.model is not None and (name := f"{setting.slug}-seed{seed}")
    ]
    return Plan(
        tuple(bases.values()), tuple(trials), tuple(setting for setting in sweep.settings if setting.model is None)
    )


def left_to_do(
    trials: Sequence[Trial], outcomes: Mapping[str, Outcome], judging: Judging | None = None
) -> tuple[Trial, ...]:
    """Return the trials that are neither finished nor stopped for good; a failed one is tried again.

    Args:
        trials: settings' trainings, or shared first stages.
        outcomes: by the trials' names.
        judging: how models are to be evaluated; one that was evaluated otherwise is evaluated again.
    """
    noted = None if judging is None else judging.redacted()

    def is_over(outcome: Outcome | None) -> bool:
        if outcome is None or outcome.status is Status.FAILED:
            return False
        return outcome.status is Status.STOPPED or outcome.judging == noted

    return tuple(trial for trial in trials if not is_over(outcomes.get(trial.name)))


def bases_left(plan: Plan, outcomes: Mapping[str, Outcome]) -> tuple[Trial, ...]:
    """Return the shared first stages that are not done and that some trial without an outcome needs."""
    begun = {name for name, outcome in outcomes.items() if outcome.status is not Status.FAILED}
    needed = {trial.base.name for trial in plan.trials if trial.base is not None and trial.name not in begun}
    return tuple(base for base in left_to_do(plan.bases, outcomes) if base.name in needed)


def total_steps(config: Config) -> int:
    """Return the total number of optimizer steps."""
    return stages(config)[-1].stop


def shared_steps(plan: Plan) -> int:
    """Return the number of optimizer steps that sharing stage 1 saves."""
    shared = sum(trial.config.schedule.stage1.steps for trial in plan.trials if trial.base is not None)
    return shared - sum(total_steps(base.config) for base in plan.bases)


def _base(config: Config, seed: int) -> Trial:
    """Return a training of stage 1 alone, without memory, which would start with a projection of zeros."""
    name = f"stage1-seed{seed}"
    none = StageConfig(steps=0)
    schedule = dataclasses.replace(config.schedule, stage2=none, stage3=none)
    model = dataclasses.replace(config.model, memory_slots=0)
    return Trial(name, _config(dataclasses.replace(config, schedule=schedule), model, name, seed), None)


def _config(config: Config, model: ModelConfig, name: str, seed: int) -> Config:
    folder = storage.join(run_folder(config), TRIALS_FOLDER)
    run = dataclasses.replace(config.run, name=name, seed=seed, storage=folder)
    return dataclasses.replace(config, model=model, run=run)
