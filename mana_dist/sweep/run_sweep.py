"""The course of a sweep, from its plan to its table."""

import contextlib
import dataclasses
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from mana_dist import ray_runtime
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.data.degradation import BI
from mana_dist.errors import UserError
from mana_dist.evaluate.datasets import find_datasets
from mana_dist.evaluate.evaluation_run import LONGEST_PARAMETER, log_files
from mana_dist.evaluate.scored_clips import find_clips
from mana_dist.metrics import METRICS, PSNR, SSIM, Unavailable, load_all
from mana_dist.progress import duration
from mana_dist.registry import versions
from mana_dist.registry.tracking_uri import experiment_id, failures, quiet_mlflow, resolve_tracking_uri
from mana_dist.storage import lease
from mana_dist.storage.lease import Fence, Lease
from mana_dist.sweep import candidate_scores, publish, results_table, sweep_record, trial_outcomes
from mana_dist.sweep.board import Board
from mana_dist.sweep.config import Judging, Options
from mana_dist.sweep.halving import Halving
from mana_dist.sweep.sweep_record import Record
from mana_dist.sweep.trial_links import trial_links
from mana_dist.sweep.trial_messages import Task
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import Plan, Trial, bases_left, left_to_do, make_plan, shared_steps, total_steps
from mana_dist.sweep.tuning import concurrency, run_trials
from mana_dist.sweep.variations import Sweep
from mana_dist.sweep.watch import Watch
from mana_dist.train.elastic.interrupts import Interrupts, Terminated
from mana_dist.train.planning.checks import check_inputs
from mana_dist.train.run_record import run_folder
from mana_dist.train.run_training import warn_of_loss
from mana_dist.video.frame_names import parse_frame_range

if TYPE_CHECKING:
    from mlflow import MlflowClient


def run(config: Config, sweep: Sweep, options: Options) -> None:
    """Do what is left of a sweep, and publish what it has found.

    Raises:
        UserError: it cannot be run as asked, or another attempt is at work on it; or no setting has been trained.
    """
    config = _prepared(config, sweep, options)
    with lease.hold(run_folder(config), f"sweep {config.run.name}", "give another run.name") as held:
        _run(config, sweep, options, held)


def _run(config: Config, sweep: Sweep, options: Options, held: Lease) -> None:
    folder = run_folder(config)
    plan = make_plan(config, sweep, options.samples)
    with Interrupts() as interrupts:
        record = _begin(config, sweep, options, folder)
        try:
            outcomes = _read(plan, folder)
            _print_plan(plan, outcomes, options.judging, folder)
            if left_to_do(plan.trials, outcomes, options.judging):
                halving = Halving(grace(config, sweep)) if options.asha else None
                _run_phases(config, plan, halving, options, record, held, interrupts)
                outcomes = _read(plan, folder)
        except (KeyboardInterrupt, Terminated):
            held.heed()
            _end(record, "KILLED")
            log.info(f"sweep {config.run.name} stopped; the same command goes on with it")
            raise
        except BaseException:
            held.heed()  # MLflow's run is the other attempt's then
            _end(record, "FAILED")
            raise
    _publish(config, sweep, plan, outcomes, record, held, options.judging)


def grace(config: Config, sweep: Sweep) -> int:
    """Return the number of output steps before ASHA may stop a trial.

    A quarter of stage 1; where settings share stage 1, so that they do not differ before, a quarter of stage 3.
    """
    stage1, stage3 = config.schedule.stage1.steps, config.schedule.stage3.steps
    return max(1, stage1 + -(-stage3 // 4) if sweep.shares_stage1 else stage1 // 4)


def _prepared(config: Config, sweep: Sweep, options: Options) -> Config:
    """Return the configuration with a name and a resolved tracking URI; checks all that can be checked now."""
    if options.asha and not config.data.validation_path:
        raise UserError("--asha compares trials by their validation's PSNR: give data.validation_path")
    run_config = dataclasses.replace(config.run, name=config.run.name or sweep.kind)
    uri = resolve_tracking_uri(config.mlflow.tracking_uri)
    config = dataclasses.replace(config, run=run_config, mlflow=dataclasses.replace(config.mlflow, tracking_uri=uri))
    check_inputs(config)
    warn_of_loss(config, uri)
    judging = options.judging
    for name, measure in load_all({"lpips": judging.lpips_trunk}).items():
        if isinstance(measure, Unavailable):
            log.info(f"warning: the table will be without {METRICS[name].label}: {measure.reason}")
    try:
        start, stop = parse_frame_range(judging.frames)
        find_clips(find_datasets(list(judging.data), BI, "auto", scale=config.model.scale), start, stop, None)
    except UserError as error:
        text = str(error).replace("--data", "--evaluate-on").replace("frame range", "--evaluate-frames")
        raise UserError(text) from error
    return config


def _begin(config: Config, sweep: Sweep, options: Options, folder: str) -> Record:
    """Return the sweep's record; makes it and the MLflow run if the sweep is new."""
    quiet_mlflow()
    from mlflow import MlflowClient

    uri = str(config.mlflow.tracking_uri)
    begun = Record(
        kind=sweep.kind,
        tracking_uri=uri,
        mlflow_run_id="",
        config=sweep_record.flat(config),
        settings=tuple(setting.label for setting in sweep.settings),
        samples=options.samples,
    )
    old = sweep_record.load(folder)
    if old is not None:
        sweep_record.check_same(str(config.run.name), old, begun)
        begun = dataclasses.replace(old, tracking_uri=uri, settings=begun.settings, samples=begun.samples)
    try:
        client = MlflowClient(uri)
        if _is_there(client, begun.mlflow_run_id):
            client.update_run(begun.mlflow_run_id, status="RUNNING")
        else:
            begun = dataclasses.replace(begun, mlflow_run_id=_new_run(client, config, begun))
    except failures() as error:
        raise UserError(f"mlflow.tracking_uri {uri} cannot be used ({error}); start it or name another") from error
    sweep_record.save(folder, begun)
    return begun


def _is_there(client: "MlflowClient", run_id: str) -> bool:
    """Return whether a run exists and is not deleted."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return False
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.get_http_status_code() == HTTPStatus.NOT_FOUND:
            return False
        raise
    return bool(found.info.lifecycle_stage == "active")


def _new_run(client: "MlflowClient", config: Config, begun: Record) -> str:
    """Make the sweep's run, the experiment and the database: trials would make the latter two at the same time."""
    from mlflow.entities import Param

    tags = {"mana_dist.command": begun.kind}
    new = client.create_run(experiment_id(client, config.mlflow.experiment), tags=tags, run_name=config.run.name)
    values = {**begun.config, "sweep": begun.kind, "settings": ", ".join(begun.settings)[:LONGEST_PARAMETER]}
    client.log_batch(new.info.run_id, params=[Param(key, str(value)) for key, value in values.items()])
    return str(new.info.run_id)


def _read(plan: Plan, folder: str) -> dict[str, Outcome]:
    found = {trial.name: trial_outcomes.read(folder, trial.name) for trial in (*plan.bases, *plan.trials)}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def _print_plan(plan: Plan, outcomes: dict[str, Outcome], judging: Judging, folder: str) -> None:
    left = left_to_do(plan.trials, outcomes, judging)
    log.info(f"sweep in {folder}: {len(plan.trials)} trials, {len(plan.trials) - len(left)} of them done")
    for setting in plan.failed:
        log.info(f"{setting.label} cannot be trained: {setting.problem}")
    if plan.bases:
        log.info(_saving(plan, outcomes))


def _saving(plan: Plan, outcomes: dict[str, Outcome]) -> str:
    """Return the line on what sharing stage 1 saves: steps, and time once a step has been timed."""
    steps = shared_steps(plan)
    whole = sum(total_steps(trial.config) for trial in plan.trials)
    steps_timed = [outcomes[base.name].step_seconds for base in plan.bases if base.name in outcomes]
    seconds = [value for value in steps_timed if value is not None]
    time = f", {duration(steps * sum(seconds) / len(seconds))} of training" if seconds else ""
    return (
        f"stage 1 is trained once per seed and shared: {steps} of {whole} steps are not trained again"
        f" ({steps / whole:.0%}{time})"
    )


def _run_phases(
    config: Config,
    plan: Plan,
    halving: Halving | None,
    options: Options,
    record: Record,
    held: Lease,
    interrupts: Interrupts,
) -> None:
    """Run the shared first stages, then the trials."""
    folder = held.folder
    ray_runtime.start_ray(cpus=config.run.worker_range[1] * config.run.cpus_per_worker)
    import ray

    try:
        room = concurrency(config, ray.available_resources(), ray.cluster_resources())
        at_once = options.at_once or room
        excess = f"; there is room for {room} now" if at_once > room else ""
        log.info(f"{at_once} trial(s) at a time, {config.run.workers} worker(s) each{excess}")
        outcomes = _read(plan, folder)
        bases, trials = bases_left(plan, outcomes), left_to_do(plan.trials, outcomes, options.judging)
        board = Board([trial.name for trial in (*bases, *trials)], at_once)
        with interrupts.awaited():
            for phase, judging, rule in ((bases, None, None), (trials, options.judging, halving)):
                chosen = _with_base(phase, folder)
                if chosen:
                    watch = Watch(chosen, folder, record.tracking_uri, board, interrupts, held.check_lately)
                    run_trials(_tasks(chosen, record, judging, held.fence), at_once, rule, watch)
        board.refresh(now=True)
    finally:
        ray.shutdown()


def _tasks(trials: Sequence[Trial], record: Record, judging: Judging | None, fence: Fence) -> list[Task]:
    run_id, uri = record.mlflow_run_id, record.tracking_uri
    return [Task(trial=trial, sweep=fence, parent=run_id, tracking_uri=uri, judging=judging) for trial in trials]


def _with_base(trials: Sequence[Trial], folder: str) -> tuple[Trial, ...]:
    """Return those whose shared stage 1 was trained; for the others, write an outcome that says why not."""
    kept: list[Trial] = []
    for trial in trials:
        base = trial_outcomes.read(folder, trial.base.name) if trial.base is not None else None
        if base is not None and base.status is Status.FAILED:
            reason = f"its stage 1 was not trained: {base.reason}"
            trial_outcomes.write(folder, trial.name, Outcome(status=Status.FAILED, reason=reason))
        else:
            kept.append(trial)
    return tuple(kept)


def _end(record: Record, status: str) -> None:
    """Close the sweep's MLflow run, if the server answers."""
    from mlflow import MlflowClient

    with contextlib.suppress(*failures()):
        MlflowClient(record.tracking_uri).set_terminated(record.mlflow_run_id, status)


def _publish(
    config: Config, sweep: Sweep, plan: Plan, outcomes: dict[str, Outcome], record: Record, held: Lease, judge: Judging
) -> None:
    from mlflow import MlflowClient

    try:
        client = MlflowClient(record.tracking_uri)
        experiment = client.get_run(record.mlflow_run_id).info.experiment_id
        links = trial_links(plan, outcomes, record.tracking_uri, experiment)
        found = results_table.make_table(sweep, plan, outcomes, links)
        best = results_table.best(found, outcomes)
        held.check()
        if best is not None:
            record = _register(best, outcomes[best.name], record, held, judge)
            held.check()
        lines = [_saving(plan, outcomes)] if plan.bases else []
        if best is not None and best.setting is not None:
            registered = f", registered as {record.registered} {record.candidate}" if record.registered else ""
            lines.append(f"best by PSNR: {best.setting.label}, seed {best.seed}{registered}")
        files = publish.publish(held.folder, sweep, found, tuple(lines))
        _log(client, record, files, outcomes, best)
        log.info(f"\n{results_table.to_markdown_text(found)}")
        log.info("\n".join([*lines, *files]))
    except failures() as error:
        raise UserError(f"the sweep is done but could not be published ({error}); give the command again") from error
    if best is None:
        reasons = "; ".join(f"{row.setting.label}: {row.note}" for row in found.rows if row.note)
        raise UserError(f"no setting of sweep {config.run.name} was trained to its end ({reasons})")


def _register(best: Trial, outcome: Outcome, record: Record, held: Lease, judging: Judging) -> Record:
    """Register the best model, if it is not yet."""
    if record.best == best.name and record.registered:
        return record
    if best.config.mlflow.registered_model is None:
        return dataclasses.replace(record, best=best.name)
    mean = {} if outcome.mean is None else outcome.mean.values
    metrics = {metric.name: value for metric in (PSNR, SSIM) if (value := mean.get(metric.name)) is not None}
    results = versions.Results(metrics, measured_on="what the sweep was evaluated on")
    version = versions.log_and_register(outcome.model, best.config, outcome.mlflow_run_id, record.tracking_uri, results)
    held.check()
    decision = candidate_scores.settle(best.config, outcome, judging, version, record.tracking_uri, held.folder)
    record = dataclasses.replace(record, best=best.name, registered=version.uri, candidate=str(decision))
    held.check()
    sweep_record.save(held.folder, record)
    return record


def _log(
    client: "MlflowClient", record: Record, files: Sequence[str], outcomes: dict[str, Outcome], best: Trial | None
) -> None:
    log_files(client, record.mlflow_run_id, files)
    if best is not None:
        client.set_tag(record.mlflow_run_id, "mana_dist.best", best.name)
        mean = outcomes[best.name].mean
        if mean is not None:
            client.log_metric(record.mlflow_run_id, "best/psnr_rgb", mean.psnr_rgb)
    client.set_terminated(record.mlflow_run_id, "FINISHED" if best is not None else "FAILED")
