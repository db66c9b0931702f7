"""The driver's part on Ray Train: starts the workers, receives their events, and stops them in order."""

import threading
from collections.abc import Callable, Set
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from mana_dist import ray_runtime, storage
from mana_dist.config import Config, RunConfig
from mana_dist.console import log
from mana_dist.data.mixture import Mixture
from mana_dist.errors import UserError
from mana_dist.model.precision import PrecisionChoice, precision_here
from mana_dist.ray_tasks import precision_on_cluster
from mana_dist.storage.lease import Fence, Lease
from mana_dist.train.checkpoints.history import Checkpoints
from mana_dist.train.elastic.interrupts import Interrupts, Terminated
from mana_dist.train.tracking.events import Event, Stopped

if TYPE_CHECKING:
    from ray.util.queue import Queue

    from mana_dist.train.elastic.leave_requests import LeaveRequests

GRACE = 20.0
"""Seconds for an orderly end; who sends SIGTERM usually gives 30 before SIGKILL."""

_RESIZE_EVERY = 15.0  # seconds between looks for more workers in an elastic run; Ray itself looks every 20 s
_END = None  # the queue's last item
# Callbacks of Ray Train (2.60) that start a process of their own for nothing: one gives workers datasets of Ray Data,
# the other frees what a dead controller has reserved in a cluster that outlives the run.
_NEEDLESS = {"DatasetsCallback"}
_NEEDLESS_IN_PRIVATE = _NEEDLESS | {"PlacementGroupCleanerCallback"}

Result = TypeVar("Result")


def start(config: Config, interrupts: Interrupts) -> None:
    """Start Ray for a run, or join its cluster, unless that is done; :func:`fit` ends it.

    Raises:
        UserError: the cluster cannot be reached, or none can be started.
        Terminated: SIGTERM came meanwhile.
    """
    run = config.run
    try:
        ray_runtime.start_ray(cpus=run.worker_range[1] * run.cpus_per_worker)
    except SystemExit as error:  # Ray's answer to SIGTERM, whose handler it installs first
        raise Terminated from error
    interrupts.catch()  # Ray has installed handlers of its own
    ray_runtime.limit_hangs(run.stall_timeout)


def stop() -> None:
    """End Ray, or leave its cluster, if it was started."""
    import ray

    ray.shutdown()


def fit(config: Config, mixture: Mixture, see: Callable[[Event], None], held: Lease, interrupts: Interrupts) -> int:
    """Train on Ray Train until the schedule's end, or until a signal requests an end.

    Args:
        config: the run.
        mixture: the training data.
        see: called with the workers' events, in a thread of its own.
        held: the lease of the run's folder.
        interrupts: the signals, caught already.

    Returns:
        The global steps done; they are in a checkpoint.

    Raises:
        UserError: something that the user can mend, or another attempt holds the run's folder; not tried again.
        KeyboardInterrupt, Terminated: a signal requested an end, and there is a checkpoint of all steps done, if
            :class:`Stopped` was seen.
    """
    start(config, interrupts)

    import ray
    from ray.util.queue import Queue

    from mana_dist.train.elastic.leave_requests import LeaveRequests

    try:
        with interrupts.awaited():
            events = Queue(actor_options=_here())
            leave_requests = LeaveRequests.open(_here())

            def begin() -> Future[Any]:
                return in_thread(_trainer(config, mixture, events, leave_requests, held.fence).fit)

            with _Listener(events, see):
                result = _fit_with_restarts(config, begin, held, interrupts, leave_requests)
                if result is None:
                    raise interrupts.error()  # no orderly end in time: the newest checkpoint must do
                step: int = result.return_value
                if interrupts.requested.is_set():
                    events.put(Stopped(step, interrupts.reason))
                    raise interrupts.error()
                return step
    finally:
        ray.shutdown()  # takes the workers along


def _fit_with_restarts(
    config: Config,
    start: "Callable[[], Future[Any]]",
    held: Lease,
    interrupts: Interrupts,
    leave_requests: "LeaveRequests",
) -> Any | None:
    """Return the training's result; None if it has not ended in time after a signal.

    Ray Train counts failures over its whole life; here they count from the last checkpoint in the storage on, so that
    a long run survives any number of them.

    Raises:
        UserError: something that the user can mend, more failures than ``run.max_failures``, or another attempt holds
            the folder.
        OSError: the storage cannot be reached.
    """
    import ray.train

    from mana_dist.train.elastic.failures import too_many, user_error

    checkpoints = Checkpoints(config)
    while not interrupts.requested.is_set():
        before = _saved(checkpoints)
        done = start()
        _wait(done, held, interrupts, leave_requests)
        if not done.done():
            return None
        try:
            return done.result()
        except ray.train.TrainingFailedError as error:
            held.check()  # workers that have lost the folder may fail with other errors
            mistake = user_error(error)
            if mistake or not isinstance(error, ray.train.WorkerGroupError):
                raise mistake or error from error
            if not config.run.max_failures or _saved(checkpoints) <= before:
                raise too_many(config, error) from error
            log.info("run.max_failures is reached, but there is a newer checkpoint: counting anew")
    return None


def _saved(checkpoints: Checkpoints) -> int:
    """Return the step of the newest whole checkpoint; 0 before the first."""
    state = checkpoints.newest().state
    return state.step if state else 0


def _trainer(config: Config, mixture: Mixture, events: "Queue", leave_requests: "LeaveRequests", fence: Fence) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from mana_dist.train.elastic.failures import ReportFailures, SmoothResize
    from mana_dist.train.worker import WorkerTask, collective_timeout, train_worker

    run = config.run
    low, high = run.worker_range
    use_gpu = _use_gpu(config)
    environment = {"OMP_NUM_THREADS": str(run.cpus_per_worker)} | ({} if use_gpu else {"DS_ACCELERATOR": "cpu"})
    task = WorkerTask(config, mixture, events.put, leave_requests, fence)
    trainer = TorchTrainer(
        lambda: train_worker(task),
        torch_config=TorchConfig(timeout_s=int(collective_timeout(config))),
        scaling_config=ray.train.ScalingConfig(
            num_workers=high if low == high else (low, high),
            elastic_resize_monitor_interval_s=_RESIZE_EVERY,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": run.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=run.name,
            # Ray takes it for a URI, where a space must be written as %20.
            storage_path=quote(run.storage, safe=":/") if storage.is_remote(run.storage) else run.storage,
            failure_config=ray.train.FailureConfig(max_failures=run.max_failures),
            callbacks=[ReportFailures(events.put), SmoothResize(leave_requests)],
            worker_runtime_env={"env_vars": environment},
        ),
    )
    _leave_out(trainer, _NEEDLESS if ray_runtime.cluster_address() else _NEEDLESS_IN_PRIVATE)
    return trainer


def _leave_out(trainer: Any, names: Set[str]) -> None:
    """Let a trainer go without those of its own callbacks; a version of Ray that makes them otherwise keeps them."""
    make = getattr(trainer, "_create_default_callbacks", None)
    if make is not None:
        trainer._create_default_callbacks = lambda: [own for own in make() if type(own).__name__ not in names]


def _wait(done: "Future[Any]", held: Lease, interrupts: Interrupts, leave_requests: "LeaveRequests") -> None:
    """Wait until the training has ended or, after a signal, the time for an orderly end is over.

    Raises:
        LostError: another attempt holds the folder.
    """
    while not done.done() and not interrupts.requested.is_set():
        held.heed()
        wait([done], timeout=0.2)
    if not done.done():
        log.info(f"{interrupts.reason}: saving and stopping; once more stops at once")
        leave_requests.leave("driver")
        wait([done], timeout=GRACE)


def _here() -> dict[str, Any]:
    """Return options that keep an actor on the driver's own node, which the run cannot do without anyway."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return {"num_cpus": 0, "scheduling_strategy": here}


def in_thread(call: Callable[[], Result]) -> "Future[Result]":
    """Call ``call`` in a thread of its own, and return its future result.

    In the main thread, Ray Train would catch Ctrl-C itself.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="fit", daemon=True).start()
    return future


class _Listener:
    """A thread that passes the workers' events on as they come."""

    def __init__(self, events: "Queue", see: Callable[[Event], None]) -> None:
        self._events = events
        self._see = see
        self._thread = threading.Thread(target=self._listen, name="events", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Handle the events still on their way, then end."""
        from ray.exceptions import RayError

        if self._thread.is_alive():
            with suppress(RayError):  # the queue is gone, and the thread with it
                self._events.put(_END)
            self._thread.join(timeout=60)

    def _listen(self) -> None:
        from ray.exceptions import RayError

        # Ray takes a driver that was halted for dead and ends its actors. The training then ends with its own error.
        with suppress(RayError):
            while (event := self._events.get()) is not _END:
                self._see(event)


def worker_precision(run: RunConfig) -> PrecisionChoice:
    """Return what ``run.precision`` means on the processors that the workers will run on."""
    import torch

    if not ray_runtime.cluster_address():
        return precision_here(run.precision, "cuda" if _takes_gpus(run, torch.cuda.device_count()) else "cpu")
    ray_runtime.start_ray()
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    return precision_on_cluster(run.precision, "cuda" if _takes_gpus(run, gpus) else "cpu")


def _takes_gpus(run: RunConfig, gpus: int) -> bool:
    return run.device == "cuda" or (run.device == "auto" and gpus >= run.worker_range[0])


def _use_gpu(config: Config) -> bool:
    """Return whether workers get a GPU each.

    Raises:
        UserError: this machine's private cluster, which cannot grow, has less than the workers need.
    """
    import ray

    run, have = config.run, ray.cluster_resources()
    least, gpus = run.worker_range[0], int(have.get("GPU", 0))
    use_gpu = _takes_gpus(run, gpus)
    if gpus and not use_gpu and run.device == "auto":
        log.info(f"training on CPU: run.workers {run.workers}, but {gpus} GPU(s); lower run.workers to train on GPU")
    elif run.device == "auto" and ray_runtime.cluster_address():
        if use_gpu:
            log.info(f"training on GPU: the cluster has {gpus}")
        else:
            log.info("training on CPU: the cluster has no GPU now; --run.device cuda waits for some")
    need = {"CPU": run.cpus_per_worker * least} | ({"GPU": least} if use_gpu else {})
    for resource, amount in need.items():
        if have.get(resource, 0) >= amount:
            continue
        shortage = f"{least} worker(s) need {amount} {resource}(s), there are {have.get(resource, 0):g}"
        if not ray_runtime.cluster_address():
            raise UserError(f"{shortage}; lower run.workers or change run.device")
        log.info(f"waiting: {shortage} in the cluster now; without an autoscaler, lower run.workers")
    return use_gpu
