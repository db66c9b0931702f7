"""The driver of a training: checks everything, starts Ray Train, tracks, and publishes the finished model."""

import dataclasses
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mana_dist import config as configuration
from mana_dist import model_folder, ray_runtime, registry, storage
from mana_dist.config import Config
from mana_dist.data.feed import check_dataset
from mana_dist.data.manifest import Manifest
from mana_dist.errors import UserError
from mana_dist.model.mana import parameter_count
from mana_dist.tracking_uri import quiet_mlflow, resolve_tracking_uri, sqlite_file
from mana_dist.train import console, run_record
from mana_dist.train.events import Event
from mana_dist.train.run_record import RunRecord
from mana_dist.train.schedule import stages

if TYPE_CHECKING:
    from ray.util.queue import Queue

    from mana_dist.train.tracking import Tracker

_END = None  # the queue's last item

Result = TypeVar("Result")


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: URI of the finished model's folder.
        registered: the registry's name of it, ``models:/NAME/VERSION``.
    """

    model: str
    registered: str


def train(config: Config) -> Trained:
    """Train to the schedule's end, resuming a run of the same name, and register the model.

    Raises:
        UserError: the configuration, the data, the storage or the tracking server cannot be used; found out before
            Ray is started wherever that is possible.
    """
    config = _named(config)
    manifest = _check(config)
    tracking_uri = resolve_tracking_uri(config.mlflow.tracking_uri)
    model = run_record.model_folder_of(config)
    record = run_record.load(config)
    if record:
        run_record.check_same_training(config, manifest, record)
        if record.registered and _is_registered_in(record, tracking_uri, config) and _is_finished(model):
            print(f"run {config.run.name} is finished already")
            return Trained(model, record.registered)
    _print_plan(config, manifest, tracking_uri, resumed=record is not None)

    quiet_mlflow()
    from mana_dist.train.tracking import Tracker  # MLflow takes seconds to import

    tracker = Tracker.open(config, tracking_uri, record)
    record = RunRecord(run_record.fingerprint(manifest), tracking_uri, tracker.run_id)
    run_record.save(config, record)
    try:
        if not _is_finished(model):
            _fit(config, manifest, tracker)
        version = registry.log_and_register(model, config, tracker.run_id, tracking_uri)
        registered = f"models:/{config.mlflow.registered_model}/{version}"
        run_record.save(config, dataclasses.replace(record, registered=registered))
    except KeyboardInterrupt:
        tracker.close("KILLED")
        print(f"\nrun {config.run.name} stopped; the same command with --run.name {config.run.name} goes on with it")
        raise
    except BaseException:
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
    return Trained(model, registered)


def _is_finished(model: str) -> bool:
    # The last file to be written.
    return storage.exists(storage.join(model, model_folder.WEIGHTS_FILE))


def _is_registered_in(record: RunRecord, tracking_uri: str, config: Config) -> bool:
    name = f"models:/{config.mlflow.registered_model}/"
    return record.tracking_uri == tracking_uri and str(record.registered).startswith(name)


def _named(config: Config) -> Config:
    """With a name made from the time, if none was given."""
    if config.run.name:
        return config
    name = datetime.now(UTC).strftime("mana-%Y%m%d-%H%M%S")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def _check(config: Config) -> Manifest:
    """Everything that can be wrong and can be seen without Ray; gives the training data's manifest."""
    data, run = config.data, config.run
    if not data.path:
        raise UserError("data.path is missing; make samples with `python -m pipelines.ingest --source … --out PATH`")
    if not stages(config):
        raise UserError("schedule: all stages have 0 steps; give at least one of them some")
    manifest = check_dataset(data.path, "data.path", config.model.frames, data.crop)
    if data.validation_path:
        check_dataset(data.validation_path, "data.validation_path", config.model.frames, crop=1)
    storage.check_writable(run.storage, "run.storage")
    return manifest


def _print_plan(config: Config, manifest: Manifest, tracking_uri: str, *, resumed: bool) -> None:
    """What will be done, and what of it would be lost."""
    data, run = config.data, config.run
    planned = ", ".join(f"stage {stage.number}: {stage.stop - stage.start}" for stage in stages(config))
    epochs = stages(config)[-1].stop * data.batch_size / manifest.samples
    print(f"run {run.name} in {run_record.run_folder(config)}{' (exists: resuming)' if resumed else ''}")
    print(f"model: {parameter_count(config.model):,} parameters; steps: {planned}")
    print(f"data: {manifest.samples} samples, batch {data.batch_size}, so {epochs:.1f} passes over them", flush=True)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # a job's working folder is deleted after it
        lost = {"run.storage": run.storage, "mlflow.tracking_uri": sqlite_file(tracking_uri) or ""}
        for key, path in lost.items():
            if path.startswith(os.getcwd() + os.sep):
                print(f"warning: {key} ({path}) lies in this Ray job's temporary folder and goes with it; name another")


def _fit(config: Config, manifest: Manifest, tracker: "Tracker") -> None:
    """Run the schedule on Ray Train; the finished model then lies in the run's folder."""
    run = config.run
    low, high = run.worker_range
    ray_runtime.start_ray(cpus=high * run.cpus_per_worker)

    import ray.train
    from ray.train.torch import TorchTrainer

    from mana_dist.train.worker import ReportFailures, WorkerTask, train_worker

    use_gpu = _use_gpu(config)
    events = _event_queue()
    task = WorkerTask(configuration.to_mapping(config), manifest, events.put)
    trainer = TorchTrainer(
        lambda: train_worker(task),
        scaling_config=ray.train.ScalingConfig(
            num_workers=high if low == high else (low, high),
            use_gpu=use_gpu,
            resources_per_worker={"CPU": run.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=run.name,
            storage_path=run.storage,
            failure_config=ray.train.FailureConfig(max_failures=run.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=run.keep_checkpoints),
            callbacks=[ReportFailures(events.put)],
            worker_runtime_env={"env_vars": _worker_environment(run.cpus_per_worker, use_gpu)},
        ),
    )
    try:
        with _Listener(events, tracker):
            result = _in_thread(trainer.fit)
        assert result.checkpoint is not None
        with result.checkpoint.as_directory() as folder:
            model_folder.copy(folder, run_record.model_folder_of(config))
    except ray.train.TrainingFailedError as error:
        raise _mended(error) from error
    finally:
        ray.shutdown()  # takes the workers along


def _event_queue() -> "Queue":
    """A queue on the driver's own node: the one node that the run cannot do without anyway."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _in_thread(call: Callable[[], Result]) -> Result:
    """The result of ``call``, made in a thread of its own.

    Ray Train catches Ctrl-C, if called in the main thread, and leaves the process by its own ways.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="fit", daemon=True).start()
    return future.result()


class _Listener:
    """A thread that prints and tracks rank 0's events as they come."""

    def __init__(self, events: "Queue", tracker: "Tracker") -> None:
        self._events = events
        self._tracker = tracker
        self._thread = threading.Thread(target=self._listen, name="events", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Handle what is still on its way, then end."""
        if self._thread.is_alive():
            self._events.put(_END)
            self._thread.join(timeout=60)

    def _listen(self) -> None:
        while (event := self._events.get()) is not _END:
            print(console.line(event), flush=True)
            self._track(event)

    def _track(self, event: Event) -> None:
        try:
            self._tracker.log(event)
        except Exception as error:  # training goes on without its tracking
            print(f"warning: MLflow did not take {event}: {error}"[:500], flush=True)


def _use_gpu(config: Config) -> bool:
    """Whether workers get a GPU each.

    Raises:
        UserError: this machine's private cluster, which cannot grow, has less than the workers need.
    """
    import ray

    run, have = config.run, ray.cluster_resources()
    least, gpus = run.worker_range[0], int(have.get("GPU", 0))
    use_gpu = run.device == "cuda" or (run.device == "auto" and gpus >= least)
    if gpus and not use_gpu and run.device == "auto":
        print(f"training on CPU: run.workers {run.workers}, but {gpus} GPU(s); lower run.workers to train on GPU")
    need = {"CPU": run.cpus_per_worker * least} | ({"GPU": least} if use_gpu else {})
    for resource, amount in need.items():
        if have.get(resource, 0) >= amount:
            continue
        shortage = f"{least} worker(s) need {amount} {resource}(s), there are {have.get(resource, 0):g}"
        if "RAY_ADDRESS" not in os.environ:
            raise UserError(f"{shortage}; lower run.workers or change run.device")
        print(f"waiting: {shortage} in the cluster now; without an autoscaler, lower run.workers", flush=True)
    return use_gpu


def _worker_environment(threads: int, use_gpu: bool) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(threads)}
    if not use_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def _mended(error: Any) -> Exception:
    """A worker's complaint about the user's input as such; anything else as it is."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, UserError):
                return cause
            cause = cause.__cause__ or getattr(cause, "cause", None)
    return error
