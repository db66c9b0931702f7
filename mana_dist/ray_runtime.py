"""Joining or starting Ray, the same way for every command."""

import contextlib
import functools
import logging
import os
import secrets
import sys
from collections.abc import Iterator

from mana_dist.errors import UserError, one_line

# Read by Ray at import or at process start, so set before Ray is imported; a user's own setting wins.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Read by Ray Train's controller, to which Ray Train hands them on; a user's own setting wins.
_RECOVERY = {
    # Ray Train asks for as many workers as there were before it counts a lost node out, and waits this long for their
    # resources (60 s by default). It never gives up, so where nodes are slow to come it merely asks again.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    # Between two looks at the workers; the default is 2 s, and a failure is noticed no sooner.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    # After which a node that Ray is told to give back is known to go; the default is 5 s of the 30 s or so left to it.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
}
# A private cluster has no dashboard: without these, Ray Train's helpers ask for one again and again.
_PRIVATE_CLUSTER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}

_STARTS = 2  # of a private cluster


def limit_hangs(seconds: float) -> None:
    """Let Ray Train take a worker process that does not answer at all for lost after ``seconds``, not after 10 min.

    Call it before a training; a process that answers but makes no step is the watchdog's business.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(seconds))


def start_ray(cpus: int | None = None) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (set inside a Ray job), else start a private one on this machine.

    The private cluster ends with this process. It gets a token of its own, through the environment, so that nobody
    else can run code on it and no token file is left behind.

    Args:
        cpus: logical CPUs that a private cluster must have; more than the machine's cores share the cores.

    Raises:
        UserError: ``RAY_ADDRESS`` names a cluster that cannot be reached, or none can be started.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    environment = _QUIET | _RECOVERY if address else _QUIET | _RECOVERY | _PRIVATE_CLUSTER
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        if "ray" in sys.modules:
            _read_authentication_anew()

    import ray  # after the environment is set

    if ray.is_initialized():
        return
    if address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises plain ones too
            raise UserError(f"cannot join the Ray cluster RAY_ADDRESS={address}: {one_line(error)}") from error
        return
    for left in reversed(range(_STARTS)):
        try:
            with _spared_signals():
                ray.init(
                    address="local",
                    num_cpus=max(cpus or 1, os.cpu_count() or 1),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=512 * 2**20,
                )
            return
        except Exception as error:  # a plain one, after half a minute, where the machine is too busy for it
            if not left:
                raise UserError(
                    f"cannot start Ray on this machine ({one_line(error)}); if it is busy, try again when it is less so"
                ) from error


def _read_authentication_anew() -> None:
    """Let Ray see the token, although it was imported before that was set; as its own ``ray.init()`` does (2.60)."""
    from ray import _raylet

    config, loader = (getattr(_raylet, name, None) for name in ("Config", "AuthenticationTokenLoader"))
    if config is not None and loader is not None:
        config.initialize("")
        loader.instance().reset_cache()


@contextlib.contextmanager
def _spared_signals() -> Iterator[None]:
    """Let the Ray processes that start meanwhile not get the signals to this program's process group.

    ``timeout``, systemd and terminals signal the whole group: Ray would be gone before its work is saved. Ray has no
    setting for it (2.60); where it starts its processes otherwise, they only stay in the group. They still end with
    this process, however it ends: the kernel tells them.
    """
    from ray._private import services

    start = getattr(services, "ConsolePopen", None)
    if start is None:
        yield
        return
    services.ConsolePopen = functools.partial(start, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = start
