"""Storage that is out of reach for a while: what failed is tried again, for a bounded time."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

PATIENCE = 60.0
"""Seconds after which an operation that still fails is given up."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0

# Waiting mends none of these.
_LASTING = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.ENAMETOOLONG,
    }
)

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def persistently(call: Callable[[*Arguments], Result], *arguments: *Arguments, patience: float = PATIENCE) -> Result:
    """The result of ``call``, which reads or writes storage and may be made any number of times.

    Args:
        call: what to do; must leave the storage as it should be however often it failed before.
        arguments: of the call.
        patience: seconds after which no new try is begun.

    Raises:
        OSError: what the last try raised; at once if it is of a kind that waiting does not mend (no such file, no
            permission, no space).
    """
    deadline = time.monotonic() + patience
    pause = _FIRST_PAUSE
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            if is_lasting(error) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def is_lasting(error: OSError) -> bool:
    """Whether waiting does not mend ``error``: no such file, no permission, no space."""
    return error.errno in _LASTING
