"""Failures of workers: reported to the driver, then tried again or, where that is of no use, the end of the run."""

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray.train
import torch
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.train.elastic.leave_requests import LeaveRequests
from mana_dist.train.run_record import run_folder
from mana_dist.train.tracking.events import Event, Failed

_LONGEST = 160  # characters of a failure's reason; Ray's messages go on with all possible causes
_LEAVE_PATIENCE = 60.0  # seconds for a checkpoint before the number of workers changes


class ReportFailures(ray.train.UserCallback):  # type: ignore[misc]  # Ray comes without types
    """A callback in Ray Train's controller that reports failed workers, which Ray restarts silently, to the driver."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Report failures, called by Ray Train; an exception raised here ends the training without another try."""
        for error in worker_exceptions.values():
            mistake = user_error(error)
            if mistake is not None:
                raise mistake
        for rank, error in worker_exceptions.items():
            self._send(Failed(rank, _reason(error)))


class SmoothResize(ControllerCallback):  # type: ignore[misc]  # Ray comes without types
    """A callback in Ray Train's controller: an elastic run changes its number of workers soon, without losing a step.

    Ray Train would kill the workers wherever they are; here they save everything and leave first. And it would count
    on the resources of a dead node for up to 20 s more.
    """

    def __init__(self, leave_requests: LeaveRequests) -> None:
        self._leave_requests = leave_requests

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Let the workers leave, called by Ray Train; resizing begins when this returns."""
        if type(current_state).__name__ == "ResizingState":
            self._leave_requests.leave("resize")  # where training has just ended, the workers have reported already
            self._leave_requests.wait_until_left(_LEAVE_PATIENCE)
            self._leave_requests.withdraw("resize")

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Refresh Ray's view of the nodes, called by Ray Train after a failure or a start that took too long."""
        with contextlib.suppress(Exception):  # without it, recovery only takes longer
            from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
                get_or_create_autoscaling_coordinator,
            )

            coordinator = get_or_create_autoscaling_coordinator()
            ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=5)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A worker's traceback ends with its error; Ray's message about a worker that does not answer begins with it.
    line = lines[0 if isinstance(error, WorkerHealthCheckTimeoutError) else -1]
    return textwrap.shorten(line, _LONGEST, placeholder=" …")


@contextlib.contextmanager
def memory_errors_as_user_errors(config: Config, *, validating: bool = False) -> Iterator[None]:
    """Turn a lack of memory, which restarts do not mend, into a :class:`UserError` that says what does."""
    make_error = _out_of_memory_in_validation if validating else _out_of_memory
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise make_error(config, "GPU" if isinstance(error, torch.OutOfMemoryError) else "main") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch's allocator on CPUs
            raise make_error(config, "main") from error
        raise


def _out_of_memory(config: Config, kind: str) -> UserError:
    data, run = config.data, config.run
    at_once = run.micro_batch or -(-data.batch_size // run.worker_range[0])
    ways = [f"set run.micro_batch to less than {at_once}"] if at_once > 1 else []
    if not run.checkpoint_activations:
        ways.append("set run.checkpoint_activations to true")
    if run.worker_range[1] < data.batch_size:
        ways.append(f"raise run.workers ({run.workers}), which share a batch")
    going_on = f"{', or '.join(ways)}, and the same run goes on; or " if ways else ""
    anew = f"lower data.batch_size ({data.batch_size}) or data.crop ({data.crop})"
    return UserError(f"a worker ran out of {kind} memory; {going_on}{anew} under another run.name")


def _out_of_memory_in_validation(config: Config, kind: str) -> UserError:
    data, run = config.data, config.run
    fewer = f"lower run.validate_samples ({run.validate_samples}), which workers keep, or " if kind == "main" else ""
    return UserError(
        f"a worker ran out of {kind} memory in validation, which takes whole frames one by one; {fewer}give "
        f"data.validation_path ({data.validation_path}) samples of smaller frames, or leave it out, and the same run "
        "goes on"
    )


def too_many(config: Config, error: ray.train.WorkerGroupError) -> UserError:
    """Return the error that ends a run whose workers failed too often; writes all failures to a file it names."""
    uri = storage.join(run_folder(config), "failure.txt")
    reasons = "; ".join(sorted({_reason(failure) for failure in error.worker_failures.values()}))
    with contextlib.suppress(OSError):
        storage.write_bytes(uri, "\n".join(map(str, error.worker_failures.values())).encode())
    return UserError(
        f"workers failed more often than run.max_failures ({config.run.max_failures}) allows, at last of: {reasons}; "
        f"look at {uri} and mend it; the same command then goes on from the newest checkpoint"
    )


def user_error(error: BaseException | None) -> UserError | None:
    """Return the user's mistake that caused ``error``, if one did."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        for failure in getattr(error, "worker_failures", {}).values():
            mistake = user_error(failure)
            if mistake is not None:
                return mistake
        error = error.__cause__ or getattr(error, "cause", None) or getattr(error, "controller_failure", None)
    return None
