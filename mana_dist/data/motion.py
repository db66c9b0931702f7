"""Sampling by motion: what moves comes more often, for it is there that neighbour frames have something to teach."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.manifest import Manifest
from mana_dist.data.shard_reader import ShardReader


def repeats(flow: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Return how often samples come in an epoch.

    Args:
        flow: their mean optical flow, LR pixels a frame; NaN counts as none.
        most: for a flow of one pixel a frame or more; one that stands still comes once, others in between, rounded.
    """
    counts: NDArray[np.int64] = 1 + np.rint((most - 1) * np.clip(np.nan_to_num(flow), 0, 1)).astype(np.int64)
    return counts


def read_repeats(uri: str, manifest: Manifest, most: int, readers: int) -> NDArray[np.int64] | None:
    """Return :func:`repeats` of a dataset's samples in its order, None if all come once.

    Reads each row group's flow from storage, a request each, in ``readers`` threads.

    Raises:
        UserError: a shard is missing, damaged or out of reach.
    """
    if most == 1:
        return None
    reader = ShardReader(uri, manifest)
    with ThreadPoolExecutor(max_workers=readers) as threads:
        flows = threads.map(lambda shard: reader.column(shard, "flow").to_numpy(), manifest.shards)
        return repeats(np.concatenate(list(flows)), most)
