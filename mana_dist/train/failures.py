"""What becomes of a failure: told to the driver, and either tried again or, where that is no use, the end."""

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray.train
import torch
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback

from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.train.events import Event, Failed
from mana_dist.train.orders import Orders

_LONGEST = 160  # characters of a failure's reason; Ray's go on with all that may have been its cause
_LEAVE_PATIENCE = 60.0  # seconds for a checkpoint before the number of workers changes


class ReportFailures(ray.train.UserCallback):  # type: ignore[misc]  # Ray comes without types
    """In Ray Train's controller: tells the driver of failed workers, which are otherwise restarted without a word."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Called by Ray Train; what this raises ends the training at once, without another try."""
        for error in worker_exceptions.values():
            mistake = user_error(error)
            if mistake is not None:
                raise mistake
        for rank, error in worker_exceptions.items():
            lines = str(error).strip().splitlines() or [type(error).__name__]
            # A worker's own error ends with what it is; Ray's own, of a worker that does not answer, begins with it.
            line = lines[0 if isinstance(error, WorkerHealthCheckTimeoutError) else -1]
            self._send(Failed(rank, textwrap.shorten(line, _LONGEST, placeholder=" …")))


class SmoothResize(ControllerCallback):  # type: ignore[misc]  # Ray comes without types
    """In Ray Train's controller: an elastic run changes its number of workers without losing a step, and soon.

    Ray Train would kill the workers wherever they are; here they save everything and leave first. And it would count
    on the resources of a dead node for up to 20 s more.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Called by Ray Train; resizing begins when this returns."""
        if type(current_state).__name__ == "ResizingState":
            self._orders.leave("resize")
            self._orders.wait_until_left(_LEAVE_PATIENCE)
            self._orders.withdraw("resize")

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Called by Ray Train after a failure or a start that took too long."""
        with contextlib.suppress(Exception):  # without it, recovery only takes longer
            from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
                get_or_create_autoscaling_coordinator,
            )

            coordinator = get_or_create_autoscaling_coordinator()
            ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=5)


@contextlib.contextmanager
def told_as_mistakes(config: Config) -> Iterator[None]:
    """Turn what a worker cannot help, however often it is restarted, into a :class:`UserError` that says what can."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(config, "GPU" if isinstance(error, torch.OutOfMemoryError) else "main") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch's allocator on CPUs
            raise _out_of_memory(config, "main") from error
        raise


def _out_of_memory(config: Config, kind: str) -> UserError:
    data, run = config.data, config.run
    ways = [] if run.micro_batch == 1 else [f"lower run.micro_batch ({run.micro_batch or '0, the whole share'})"]
    if not run.checkpoint_activations:
        ways.append("set run.checkpoint_activations to true")
    ways.append(f"raise run.workers ({run.workers}), which share a batch")
    anew = f"lower data.batch_size ({data.batch_size}) or data.crop ({data.crop})"
    return UserError(
        f"a worker ran out of {kind} memory; {', or '.join(ways)}, and the same run goes on; "
        f"or {anew} under another run.name"
    )


def user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake that ``error`` comes from, if it does."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        for failure in getattr(error, "worker_failures", {}).values():
            mistake = user_error(failure)
            if mistake is not None:
                return mistake
        error = error.__cause__ or getattr(error, "cause", None) or getattr(error, "controller_failure", None)
    return None
