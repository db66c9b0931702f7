"""Repeat what failed because a storage is out of reach for a while, for a bounded time."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

PATIENCE = 60.0
"""Seconds after which an operation that still fails is given up."""

_FIRST_PAUSE, _MAX_PAUSE = 0.25, 5.0

# Waiting does not mend these.
_LASTING = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG),
)

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def persistently(call: Callable[[*Arguments], Result], *arguments: *Arguments, patience: float = PATIENCE) -> Result:
    """Return the result of ``call(*arguments)``, repeated for ``patience`` seconds while the storage is out of reach.

    Raises:
        OSError: the last try's; at once if waiting does not mend it (no such file, no permission, no space).
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
        pause = min(2 * pause, _MAX_PAUSE)


def is_lasting(error: OSError) -> bool:
    """Return whether waiting does not mend ``error``: no such file, no permission, no space."""
    return error.errno in _LASTING
