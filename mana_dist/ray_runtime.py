"""Start Ray or join a cluster, in the same way for every command."""

import contextlib
import functools
import inspect
import logging
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mana_dist.errors import UserError, one_line

# Settings that Ray reads at its import; a user's own ones take precedence.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Settings of Ray Train's controller; a user's own ones take precedence.
_RECOVERY = {
    # After losing a node, Ray Train first requests as many workers as before, and waits this long for their resources
    # (60 s by default) before it tries with fewer. It never gives up, so slow nodes only cause further requests.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    # The interval at which failed workers are noticed; 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    # The interval at which the preemption of a node is noticed; 5 s by default, of the 30 s or so that the node has.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
}
# A private cluster has no dashboard, which Ray Train would otherwise look for again and again.
_PRIVATE_CLUSTER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}

_STARTS = 2  # tries to start a private cluster
_ANSWERS = 30.0  # seconds for the nodes to answer

Answer = TypeVar("Answer")


def cluster_address() -> str:
    """Return the address of the cluster that :func:`start_ray` joins; empty: it starts a private one."""
    return os.environ.get("RAY_ADDRESS", "")


def limit_hangs(seconds: float) -> None:
    """Let Ray Train count a worker process as lost if it does not answer for ``seconds``; the default is 10 min.

    Must be called before a training. The watchdog handles a process that answers but makes no step.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(seconds))


def start_ray(cpus: int | None = None) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (set inside a Ray job), else start a private one on this machine.

    The private cluster ends with this process. Its token is passed through the environment, so that nobody else can
    run code on it and no token file is left behind.

    Args:
        cpus: least number of logical CPUs of a private cluster; it may exceed the machine's.

    Raises:
        UserError: ``RAY_ADDRESS`` names a cluster that cannot be reached, or none can be started.
    """
    address = cluster_address()
    environment = _QUIET | _RECOVERY if address else _QUIET | _RECOVERY | _PRIVATE_CLUSTER
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

    import ray  # after the environment is set

    if ray.is_initialized():
        return
    _reload_authentication()  # Ray's processes read the environment, and this one may know an earlier token
    if address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises some of this very class
            raise UserError(f"cannot join the Ray cluster RAY_ADDRESS={address}: {one_line(error)}") from error
        return
    for left in reversed(range(_STARTS)):
        try:
            with _own_process_group(), _lean():
                ray.init(
                    address="local",
                    num_cpus=max(cpus or 1, os.cpu_count() or 1),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=512 * 2**20,
                )
            return
        except Exception as error:  # of this very class, after half a minute, if the machine is too busy
            if not left:
                raise UserError(
                    f"cannot start Ray on this machine ({one_line(error)}); if it is busy, try again when it is less so"
                ) from error


def ask_nodes(question: Callable[[], Answer], *, gpus: bool) -> list[Answer]:
    """Return what ``question`` returns on each node of the cluster that has CPUs, or GPUs.

    Nodes that die, or whose GPUs are all taken, give no answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    kind = "GPU" if gpus else "CPU"
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(kind, 0) > 0]
    if nodes == [ray.get_runtime_context().get_node_id()]:
        return [question()]  # this one: no process need start for it

    def ask() -> Answer:  # Ray takes functions alone, and the question may be a partial one
        return question()

    # Without a share of a GPU, a task sees none.
    task = ray.remote(num_cpus=0, num_gpus=0.001 if gpus else 0, max_retries=0)(ask)
    pending = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    if not pending:
        return []
    ready, late = ray.wait(pending, num_returns=len(pending), timeout=_ANSWERS)
    for reference in late:
        ray.cancel(reference, force=True)
    answers = []
    for reference in ready:
        with contextlib.suppress(ray.exceptions.RayError):
            answers.append(ray.get(reference))
    return answers


def _reload_authentication() -> None:
    """Let Ray see the environment's token if it was set after Ray's import, as its own ``ray.init()`` does (2.60)."""
    from ray import _raylet

    config, loader = (getattr(_raylet, name, None) for name in ("Config", "AuthenticationTokenLoader"))
    if config is not None and loader is not None:
        config.initialize("")
        loader.instance().reset_cache()


@contextlib.contextmanager
def _own_process_group() -> Iterator[None]:
    """Start Ray's processes outside this program's process group while the context is open; end them if it fails.

    ``timeout``, systemd and terminals signal the whole group, so Ray would end before its work is saved. Ray (2.60) has
    no setting for it; a version without ``ConsolePopen`` keeps its processes in the group. They end with this process
    in any case, by a signal of the kernel; but those of a start that failed would stay until then, beside the next.
    """
    from ray._private import services

    start = getattr(services, "ConsolePopen", None)
    if start is None:
        yield
        return
    started: list[subprocess.Popen[bytes]] = []

    def start_outside(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(start(*arguments, **options, process_group=0))
        return started[-1]

    services.ConsolePopen = start_outside
    try:
        yield
    except BaseException:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        services.ConsolePopen = start


# What a private cluster has no use for: an autoscaler, and the reading of the workers' output, which we do not show.
# And its agent takes any free port: beside another cluster of this machine, Ray (2.60) would wait 3.5 s for its default
# one, and another that is started later, with that port taken, would never take jobs.
_LEAN = {"include_log_monitor": False, "no_monitor": True, "dashboard_agent_listen_port": 0}


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """Let a node start with ``_LEAN`` while the context is open.

    Ray has no options for it in ``init``; a version whose parameters have other names starts all, and waits.
    """
    from ray._private import parameter

    initialise = parameter.RayParams.__init__
    known = inspect.signature(initialise).parameters
    lean = {name: value for name, value in _LEAN.items() if name in known}
    parameter.RayParams.__init__ = functools.partialmethod(initialise, **lean)
    try:
        yield
    finally:
        parameter.RayParams.__init__ = initialise
