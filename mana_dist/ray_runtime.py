"""Joining or starting Ray, the same way for every command."""

import logging
import os
import secrets

from mana_dist.errors import UserError

# Read by Ray at import or at process start, so set before Ray is imported; a user's own setting wins.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# A private cluster has no dashboard: without these, Ray Train's helpers ask for one again and again.
_PRIVATE_CLUSTER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    # Workers wait for the controller's poll whenever they report a checkpoint; the default is 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}


def start_ray(cpus: int | None = None) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (set inside a Ray job), else start a private one on this machine.

    The private cluster ends with this process. It gets a token of its own, through the environment, so that nobody
    else can run code on it and no token file is left behind.

    Args:
        cpus: logical CPUs that a private cluster must have; more than the machine's cores share the cores.

    Raises:
        UserError: ``RAY_ADDRESS`` names a cluster that cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    environment = _QUIET if address else {**_QUIET, **_PRIVATE_CLUSTER}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

    import ray  # after the environment is set

    if ray.is_initialized():
        return
    if address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"cannot join the Ray cluster RAY_ADDRESS={address}: {error}") from error
        return
    ray.init(
        address="local",
        num_cpus=max(cpus or 1, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=512 * 2**20,
    )
