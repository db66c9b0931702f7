"""A check that a run's folder is the same one on every node, and not a local folder of the same name."""

import contextlib
import time
from collections.abc import Sequence

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.storage.lease import Fence

_PATIENCE = 10.0  # seconds for a network file system to show what another node has written


def sees(fence: Fence, patience: float = _PATIENCE) -> bool:
    """Return whether this process sees the driver's lease within ``patience`` seconds.

    An object store is the same everywhere and is not checked.
    """
    if storage.is_remote(fence.folder):
        return True
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):
            if fence.is_seen():
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def check_all(seen: Sequence[bool], name: str) -> None:
    """Check that all workers have seen the lease.

    Args:
        seen: whether they have, by rank.
        name: ``run.storage``.

    Raises:
        UserError: some have not.
    """
    if not all(seen):
        raise UserError(
            f"run.storage {name} is not the same place on all nodes ({seen.count(False)} of {len(seen)} workers do not "
            "see what the driver writes there); name a shared folder or s3://BUCKET/PATH"
        )
