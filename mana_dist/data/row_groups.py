"""The row groups of a run's datasets by number, read ahead of their use by threads and kept in memory within bounds."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.cache import DiskCache
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.mixture import Dataset, group_rows, group_sizes
from mana_dist.data.samples import SampleGroup
from mana_dist.data.shard_reader import ShardReader


@dataclass(frozen=True)
class _GroupLocation:
    """A row group's dataset and shard, its number in the shard's file, and its size in memory."""

    dataset: Dataset
    shard: Shard
    index: int
    bytes: int


@dataclass
class _Held:
    """A row group in memory, or on its way there; ``uses`` counts the samples taken from it so far."""

    group: Future[SampleGroup]
    uses: int = 0


class RowGroups:
    """All row groups of datasets, numbered over all their shards. For one thread; only the reading has others.

    Uses are announced by :meth:`request`, which starts the reading, and made by :meth:`take`, in any order. A row group
    stays in memory while announced uses of it are open. Beyond both bounds the others are dropped, the least recently
    used first, and those with all rows used before those in the middle of their use.

    Args:
        datasets: the datasets, each in a folder of its own.
        least: number of row groups in the middle of their use to keep in any case.
        budget: bytes of row groups to keep.
        readers: number of threads that read and decode.
        disk: cache of decoded row groups beyond this process; closed with this.
        uses: samples that are taken from every row group in an epoch; None: each row once.

    Attributes:
        rows: rows of every row group.
        bytes: bytes in memory now, or being read.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        *,
        least: int,
        budget: int,
        readers: int = 1,
        disk: DiskCache | None = None,
        uses: NDArray[np.int64] | None = None,
    ) -> None:
        self._locations = [
            _GroupLocation(dataset, shard, index, rows * _sample_bytes(shard, dataset.manifest))
            for dataset in datasets
            for shard in dataset.manifest.shards
            for index, rows in enumerate(group_sizes(shard))
        ]
        self.rows = group_rows(datasets)
        self._uses = self.rows if uses is None else uses
        self._least, self._budget, self._readers = least, budget, readers
        self._readers_of = {dataset.uri: ShardReader(dataset.uri, dataset.manifest) for dataset in datasets}
        self._disk = disk
        self._executor = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="reader")
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self.bytes = 0
        self._open: Counter[int] = Counter()  # announced uses

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers_of.values():
            reader.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._disk is not None:
            self._disk.close()

    def __getitem__(self, group: int) -> SampleGroup:
        """Return row group number ``group``."""
        self.request(group)
        return self.take(group)

    @property
    def may_read_ahead(self) -> bool:
        """Return whether announcing further uses would keep the readers busy, or fits into half of the budget."""
        ahead = [group for group in self._open if not self._held[group].uses]
        return len(ahead) < 2 * self._readers or sum(self._locations[g].bytes for g in ahead) < self._budget // 2

    def request(self, group: int) -> None:
        """Announce a use of ``group``: one of its rows will be taken."""
        self._open[group] += 1
        if group not in self._held:
            self._held[group] = _Held(self._executor.submit(self._read, self._locations[group]))
            self.bytes += self._locations[group].bytes
            self._shrink()

    def take(self, group: int) -> SampleGroup:
        """Wait for row group number ``group``, whose use was announced, and return it."""
        held = self._held[group]
        read = held.group.result()
        held.uses += 1
        self._open[group] -= 1
        self._held.move_to_end(group)
        if not self._open[group]:
            del self._open[group]
            self._shrink()
        return read

    def _shrink(self) -> None:
        if self.bytes <= self._budget:
            return
        closed = [group for group in self._held if group not in self._open]  # the least recently used first
        used_up = [group for group in closed if self._held[group].uses % self._uses[group] == 0]
        in_use = [group for group in closed if self._held[group].uses % self._uses[group]]
        for group in used_up + in_use[: max(0, len(in_use) - self._least)]:
            if self.bytes <= self._budget:
                return
            del self._held[group]
            self.bytes -= self._locations[group].bytes

    def _read(self, location: _GroupLocation) -> SampleGroup:
        place = location.dataset, location.shard, location.index
        kept = self._disk and self._disk.load(*place)
        if kept:
            return kept
        group = self._readers_of[location.dataset.uri].read(location.shard, location.index)
        if self._disk:
            self._disk.store(*place, group)
        return group


def _sample_bytes(shard: Shard, manifest: Manifest) -> int:
    return 3 * shard.height * shard.width * (manifest.frames + manifest.scale**2)
