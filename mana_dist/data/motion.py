"""How often samples come: by their dataset's weight, and more often where something moves.

It is there that neighbour frames have something to teach.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.mixture import Dataset
from mana_dist.data.shard_reader import ShardReader


def repeats(flow: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Return how often samples come in an epoch.

    Args:
        flow: their mean optical flow, LR pixels a frame; NaN counts as none.
        most: for a flow of one pixel a frame or more; one that stands still comes once, others in between, rounded.
    """
    counts: NDArray[np.int64] = 1 + np.rint((most - 1) * np.clip(np.nan_to_num(flow), 0, 1)).astype(np.int64)
    return counts


def read_repeats(datasets: Sequence[Dataset], most: int, readers: int) -> NDArray[np.int64] | None:
    """Return how often the samples come in an epoch, in their order; None if all come once.

    A sample comes as often as its dataset's weight says, times :func:`repeats`. For these each shard's flow is read
    from storage, in ``readers`` threads.

    Raises:
        UserError: a shard is missing, damaged or out of reach.
    """
    if most == 1 and all(dataset.weight == 1 for dataset in datasets):
        return None
    with ThreadPoolExecutor(max_workers=readers) as threads:
        return np.concatenate([dataset.weight * found for dataset in datasets for found in _of(dataset, most, threads)])


def _of(dataset: Dataset, most: int, threads: ThreadPoolExecutor) -> Iterator[NDArray[np.int64]]:
    """Yield :func:`repeats` of a dataset's samples, shard by shard."""
    shards = dataset.manifest.shards
    if most == 1:
        return (np.ones(shard.rows, dtype=np.int64) for shard in shards)
    reader = ShardReader(dataset.uri, dataset.manifest)
    return threads.map(lambda shard: repeats(reader.column(shard, "flow").to_numpy(), most), shards)
