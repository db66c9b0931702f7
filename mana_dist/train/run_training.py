"""The driver of a training: checks everything, starts Ray Train, tracks, and publishes the finished model."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mana_dist import config as configuration
from mana_dist import ray_runtime
from mana_dist.config import Config
from mana_dist.console import log
from mana_dist.data.mixture import Mixture, fingerprint, samples
from mana_dist.errors import UserError
from mana_dist.registry.tracking_uri import quiet_mlflow, resolve_tracking_uri, single_tries, sqlite_file
from mana_dist.storage import lease
from mana_dist.storage.lease import Lease, LostError
from mana_dist.train import run_record
from mana_dist.train.elastic.interrupts import Interrupts, Terminated
from mana_dist.train.planning.checks import check_inputs
from mana_dist.train.run_record import RunRecord
from mana_dist.train.schedule import stages
from mana_dist.train.tracking.events import Event

# What brings torch is imported where it is used: mistakes are answered before.
if TYPE_CHECKING:
    from mana_dist.registry.versions import Results
    from mana_dist.train.tracking.mlflow_run import Tracker

_FLUSH = 600.0  # seconds for a tracking server to come back before a model is registered


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: URI of the finished model's folder.
        registered: the registry's name of it, ``models:/NAME/VERSION``; None if it was not to be registered.
        candidate: the decision about the registry's alias ``candidate``; None if there was none.
    """

    model: str
    registered: str | None
    candidate: str | None = None


@dataclass(frozen=True)
class Part:
    """A training's place in something larger, such as a sweep, which picks the model to register itself.

    Attributes:
        parent: the MLflow run that the training's is shown under.
        watch: called with every event, after the console and MLflow.
        prepare: called once the run's folder is locked for this training, before anything is read from there.
    """

    parent: str
    watch: Callable[[Event], None]
    prepare: Callable[[], None]


def train(config: Config, part: Part | None = None) -> Trained:
    """Train to the schedule's end, resuming a run of the same name, and register the model.

    Args:
        config: the run.
        part: set if the training belongs to something larger; the model then is not registered.

    Raises:
        UserError: the configuration, the data, the storage or the tracking server cannot be used, or another attempt
            is at work on the run; found out before Ray is started wherever that is possible.
    """
    with Interrupts() as interrupts:
        config = configuration.resolved(_named(config))
        mixture = check_inputs(config)
        folder, name = run_record.run_folder(config), f"run {config.run.name}"
        # The training that a sweep's trial replaces may be about to end.
        with lease.hold(folder, name, "give another run.name", patient=part is not None) as held:
            if part is not None:
                part.prepare()
            return _train_and_register(config, mixture, held, interrupts, part)


def _train_and_register(
    config: Config, mixture: Mixture, held: Lease, interrupts: Interrupts, part: Part | None
) -> Trained:
    """Train within one MLflow run, and end that run by the outcome."""
    from mana_dist.train import ray_fit, starting_weights
    from mana_dist.train.planning.run_plan import with_precision

    tracking_uri = resolve_tracking_uri(config.mlflow.tracking_uri)
    model = run_record.model_folder_of(config)
    record = run_record.load(config)
    if record:
        run_record.check_same_training(config, mixture, record)
    start = starting_weights.look_up(config, tracking_uri, record)
    is_finished = run_record.is_finished(config)
    if record and record.registered and _is_registered_in(record, tracking_uri, config) and is_finished:
        log.info(f"run {config.run.name} is finished already")
        return Trained(model, record.registered, record.candidate)
    config = with_precision(config, record, ray_fit.worker_precision)
    _print_plan(config, mixture, tracking_uri, resumed=record is not None)

    open_tracker = functools.partial(_open_tracker, config, mixture, tracking_uri, record, held, part)
    if part is not None or is_finished:  # a part's Ray is that of the larger thing
        tracker, failure = open_tracker(), None
    else:
        tracker, failure = _open_and_start(open_tracker, config, interrupts)
    try:
        init = starting_weights.digest(start, record)
        record = RunRecord(fingerprint(mixture), tracking_uri, tracker.run_id, init=init)
        run_record.save(config, record)
        _raise(failure)
        starting_weights.write(config, start, held.check)
        if not is_finished:
            _train_model(config, mixture, tracker, held, interrupts, part)
        if not tracker.flush(_FLUSH):
            raise UserError(f"mlflow.tracking_uri {tracking_uri} is out of reach; the same command then registers")
        held.check()
        if part is None and config.mlflow.registered_model is not None:
            record = _register(config, record, tracking_uri, held, interrupts)
    except LostError:
        raise  # MLflow's run is the other attempt's now
    except (KeyboardInterrupt, Terminated):
        held.heed()
        tracker.close("KILLED")
        log.info(f"\nrun {config.run.name} stopped; the same command with --run.name {config.run.name} goes on with it")
        raise
    except BaseException:
        held.heed()
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
    return Trained(model, record.registered, record.candidate)


def _register(config: Config, record: RunRecord, tracking_uri: str, held: Lease, interrupts: Interrupts) -> RunRecord:
    """Register the finished model, decide about the alias ``candidate``, and return the record with both."""
    from mana_dist.registry import versions
    from mana_dist.train import validate_candidate

    model = run_record.model_folder_of(config)
    results = _final_results(config, record, tracking_uri)
    version = versions.log_and_register(model, config, record.mlflow_run_id, tracking_uri, results)
    held.check()
    decision = validate_candidate.settle(config, model, version, tracking_uri, interrupts)
    record = dataclasses.replace(record, registered=version.uri, candidate=str(decision))
    held.check()
    run_record.save(config, record)
    return record


def _final_results(config: Config, record: RunRecord, tracking_uri: str) -> "Results | None":
    """Return the scores of the finished model in the run's own validation; None without one."""
    from mana_dist.registry.versions import Results
    from mana_dist.train.checkpoints import publishing
    from mana_dist.train.checkpoints.history import Checkpoints
    from mana_dist.train.tracking import mlflow_run, run_page

    if not config.data.validation_path:
        return None
    try:
        step = publishing.chosen_step(config, Checkpoints(config))
    except OSError as error:
        raise UserError(f"run.storage {config.run.storage} cannot be used ({error}); mend it to go on") from error
    scores = mlflow_run.scores_at(tracking_uri, record.mlflow_run_id, step)
    return Results(scores, step, run_page.validation_input(config).dataset)


def _open_tracker(
    config: Config, mixture: Mixture, tracking_uri: str, record: RunRecord | None, held: Lease, part: Part | None
) -> "Tracker":
    quiet_mlflow()
    from mana_dist.train.tracking import run_page
    from mana_dist.train.tracking.mlflow_run import Tracker

    page = run_page.describe(config, mixture)
    return Tracker.open(config, tracking_uri, record, part.parent if part else None, held.check_lately, page)


def _open_and_start(
    open_tracker: Callable[[], "Tracker"], config: Config, interrupts: Interrupts
) -> tuple["Tracker", BaseException | None]:
    """Open MLflow's run while Ray starts, since both take seconds.

    Returns:
        The run, and what kept Ray from starting, if anything did, to be raised where the run can be told of it.
    """
    from mana_dist.train import ray_fit

    opening = ray_fit.in_thread(open_tracker)
    failure = None
    try:
        ray_fit.start(config, interrupts)  # here: Ray's processes end with the thread that has started them
    except BaseException as error:
        failure = error
    try:
        return opening.result(), failure
    except BaseException:
        ray_fit.stop()
        raise


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure


def _train_model(
    config: Config, mixture: Mixture, tracker: "Tracker", held: Lease, interrupts: Interrupts, part: Part | None
) -> None:
    """Run the schedule, or what is left of it, and write the finished model into the run's folder."""
    from mana_dist.train import ray_fit
    from mana_dist.train.checkpoints import publishing
    from mana_dist.train.checkpoints.history import Checkpoints
    from mana_dist.train.tracking.observer import Observer

    observer = Observer(tracker, config, alone=part is None)

    def see(event: Event) -> None:
        if held.is_lost:
            return  # the other attempt reports for itself
        observer.see(event)
        if part is not None:
            part.watch(event)

    checkpoints = Checkpoints(config)
    total = stages(config)[-1].stop
    try:
        newest = checkpoints.newest().state
        # The last validation comes after the last checkpoint, so it may be what is left to do.
        if newest is None or newest.step < total or config.data.validation_path:
            # Meanwhile nobody but the tracker's delivery talks to MLflow.
            with single_tries(), contextlib.closing(observer):
                ray_fit.fit(config, mixture, see, held, interrupts)
        publishing.publish(config, checkpoints, held.check)
    except OSError as error:
        raise UserError(f"run.storage {config.run.storage} cannot be used ({error}); mend it to go on") from error


def _is_registered_in(record: RunRecord, tracking_uri: str, config: Config) -> bool:
    name = f"models:/{config.registered_model}/"
    return record.is_tracked_in(tracking_uri) and str(record.registered).startswith(name)


def _named(config: Config) -> Config:
    """Return the configuration with a name made from the time, if it has none."""
    if config.run.name:
        return config
    name = datetime.now(UTC).strftime("mana-%Y%m%d-%H%M%S")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def _print_plan(config: Config, mixture: Mixture, tracking_uri: str, *, resumed: bool) -> None:
    """Log what will be done, and which results would be lost with a Ray job's folder."""
    from mana_dist.model.mana import parameter_count

    data, run = config.data, config.run
    planned = ", ".join(f"stage {stage.number}: {stage.stop - stage.start}" for stage in stages(config))
    passes = stages(config)[-1].stop * data.batch_size / samples(mixture)
    often = (
        f"so {passes:.1f} passes over them" if data.motion == 1 else f"what moves up to {data.motion} times as often"
    )
    log.info(f"run {run.name} in {run_record.run_folder(config)}{' (exists: resuming)' if resumed else ''}")
    log.info(f"model: {parameter_count(config.model):,} parameters; steps: {planned}")
    log.info(f"data: {samples(mixture)} samples an epoch, batch {data.batch_size}, {often}")
    wanted, there = run.worker_range[1] * run.cpus_per_worker, os.cpu_count() or 1
    if not ray_runtime.cluster_address() and wanted > there:  # in a cluster they wait for CPUs, here they share them
        log.info(f"note: {run.workers} workers ask for {wanted} CPUs and share the {there} of this machine: no faster")
    warn_of_loss(config, tracking_uri)


def warn_of_loss(config: Config, tracking_uri: str) -> None:
    """Log a warning about results in the working folder of a Ray job, which is deleted after it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        lost = {"run.storage": config.run.storage, "mlflow.tracking_uri": sqlite_file(tracking_uri) or ""}
        for key, path in lost.items():
            if path.startswith(os.getcwd() + os.sep):
                log.info(
                    f"warning: {key} ({path}) lies in this Ray job's temporary folder and goes with it; name another"
                )
