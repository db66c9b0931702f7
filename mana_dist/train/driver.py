"""The driver of a training: checks everything, starts Ray Train, tracks, and publishes the finished model."""

import dataclasses
import os
import tempfile
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
from mana_dist.tracking_uri import quiet_mlflow, resolve_tracking_uri
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
    tracking_uri = resolve_tracking_uri(config.mlflow.tracking_uri)
    manifest = _check(config)
    resumed = run_record.bind_config(config)
    record = run_record.load_record(config)
    model = run_record.model_folder_of(config)
    if record and record.registered_version and storage.exists(model):
        print(f"run {config.run.name} is finished already")
        return Trained(model, f"models:/{config.mlflow.registered_model}/{record.registered_version}")
    _print_plan(config, manifest, resumed)

    quiet_mlflow()
    from mana_dist.train.tracking import Tracker  # MLflow takes seconds to import

    tracker = Tracker.open(config, tracking_uri, record)
    record = RunRecord(tracking_uri, tracker.run_id)
    run_record.save_record(config, record)
    try:
        if not storage.exists(model):
            _fit(config, tracker)
        version = registry.log_and_register(model, config, tracker.run_id, tracking_uri)
        run_record.save_record(config, dataclasses.replace(record, registered_version=str(version)))
    except KeyboardInterrupt:
        tracker.close("KILLED")
        raise
    except BaseException:
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
    return Trained(model, f"models:/{config.mlflow.registered_model}/{version}")


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


def _print_plan(config: Config, manifest: Manifest, resumed: bool) -> None:
    """What will be done."""
    data, run = config.data, config.run
    planned = ", ".join(f"stage {stage.number}: {stage.stop - stage.start}" for stage in stages(config))
    epochs = stages(config)[-1].stop * data.batch_size / manifest.samples
    print(f"run {run.name} in {run_record.run_folder(config)}{' (exists: resuming)' if resumed else ''}")
    print(f"model: {parameter_count(config.model):,} parameters; steps: {planned}")
    print(f"data: {manifest.samples} samples, batch {data.batch_size}, so {epochs:.1f} passes over them", flush=True)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and run.storage.startswith(os.getcwd() + os.sep):
        print(
            "warning: run.storage lies in this Ray job's temporary folder and goes with it; "
            "give an absolute path or a bucket that all nodes share"
        )


def _fit(config: Config, tracker: "Tracker") -> None:
    """Run the schedule on Ray Train; the finished model then lies in the run's folder."""
    run = config.run
    low, high = run.worker_range
    ray_runtime.start_ray(cpus=high * run.cpus_per_worker)
    use_gpu = _use_gpu(config)

    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    from mana_dist.train.worker import WorkerTask, train_worker

    events = Queue(actor_options={"num_cpus": 0})
    task = WorkerTask(configuration.to_mapping(config), events.put)
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
            worker_runtime_env={"env_vars": _worker_environment(run.cpus_per_worker, use_gpu)},
        ),
    )
    try:
        with _Listener(events, tracker):
            result = _in_thread(trainer.fit)
        assert result.checkpoint is not None
        with result.checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as temporary:
            finished = os.path.join(temporary, "model")
            model_folder.copy(folder, finished)
            storage.copy_folder(finished, run_record.model_folder_of(config))
    except ray.train.TrainingFailedError as error:
        raise _mended(error) from error
    finally:
        ray.shutdown()  # takes the workers along


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
            print(f"warning: MLflow did not take {type(event).__name__} at step {event.step}: {error}", flush=True)


def _use_gpu(config: Config) -> bool:
    """Whether workers get a GPU each; refuses what the cluster can never hold."""
    import ray

    run, have = config.run, ray.cluster_resources()
    gpus = int(have.get("GPU", 0))
    use_gpu = run.device == "cuda" or (run.device == "auto" and gpus > 0)
    need = {"CPU": run.cpus_per_worker} | ({"GPU": 1} if use_gpu else {})
    least = run.worker_range[0]
    for resource, each in need.items():
        if have.get(resource, 0) < each * least:
            print(
                f"waiting: {least} worker(s) need {each * least} {resource}, the cluster has "
                f"{have.get(resource, 0):g}; lower run.workers unless an autoscaler adds nodes",
                flush=True,
            )
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
