"""Decisions of rank 0 that all workers follow at the same step."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


class Consensus:
    """Messages from rank 0 and among all workers, over gloo whatever carries the gradients; collective.

    Args:
        timeout: seconds after which a worker that does not answer makes the others fail.
    """

    def __init__(self, timeout: float) -> None:
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        assert isinstance(group, dist.ProcessGroup)
        self._group = group
        self._word = torch.zeros(1, dtype=torch.int64)
        self._pending: dist.Work | None = None

    def exchange(self, word: int) -> int:
        """Send rank 0's ``word`` for the step now done, and return the one for the step before, 0 at first.

        The word travels while the next step runs, so that no step waits for it.
        """
        heard = 0
        if self._pending is not None:
            self._pending.wait()
            heard = int(self._word.item())
        self._word = torch.tensor([word], dtype=torch.int64)
        self._pending = dist.broadcast(self._word, src=0, group=self._group, async_op=True)
        return heard

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's ``value`` on all workers; anything that can be pickled."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's ``value``, by rank; anything that can be pickled."""
        values = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values
