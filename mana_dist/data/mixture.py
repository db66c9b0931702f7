"""What a run trains on: one dataset or several, one after the other in one numbering of their row groups."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.manifest import Manifest, Shard


@dataclass(frozen=True)
class Dataset:
    """A dataset of a run.

    Attributes:
        uri: its folder.
        manifest: its manifest at the run's start.
        weight: how often each of its samples comes in an epoch, at the least.
    """

    uri: str
    manifest: Manifest
    weight: int = 1

    @property
    def fingerprint(self) -> str:
        """A digest of its shards, their rows and row groups, which the order of samples depends on."""
        shards = [(shard.path, shard.rows, shard.group_rows, shard.bytes) for shard in self.manifest.shards]
        return hashlib.sha256(json.dumps(shards).encode()).hexdigest()


Mixture = tuple[Dataset, ...]
"""The datasets of a run, in their order."""


def fingerprint(mixture: Mixture) -> str:
    """Return a digest of all that the order of samples depends on; of one dataset as it is, that dataset's."""
    if len(mixture) == 1 and mixture[0].weight == 1:
        return mixture[0].fingerprint
    parts = [(dataset.fingerprint, dataset.weight) for dataset in mixture]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def samples(mixture: Mixture) -> int:
    """Return the samples of an epoch, without regard to their motion."""
    return sum(dataset.weight * dataset.manifest.samples for dataset in mixture)


def group_sizes(shard: Shard) -> list[int]:
    """Return the rows of every row group of ``shard``: all full but the last."""
    full, rest = divmod(shard.rows, shard.group_rows)
    return [shard.group_rows] * full + ([rest] if rest else [])


def group_rows(datasets: Sequence[Dataset]) -> NDArray[np.int64]:
    """Return the rows of every row group."""
    return np.concatenate([group_sizes(shard) for dataset in datasets for shard in dataset.manifest.shards])
