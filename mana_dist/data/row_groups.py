"""The row groups of a dataset by number, read ahead of their use by threads and kept in memory within bounds."""

from collections import Counter, OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.cache import DiskCache
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.samples import SampleGroup
from mana_dist.data.shard_reader import ShardReader


@dataclass(frozen=True)
class _GroupLocation:
    """A row group's shard, its number in the shard's file, and its size in memory."""

    shard: Shard
    index: int
    bytes: int


@dataclass
class _Held:
    """A row group in memory, or on its way there; ``uses`` counts the samples taken from it so far."""

    group: Future[SampleGroup]
    uses: int = 0


class RowGroups:
    """All row groups of a dataset, numbered over its shards. For one thread; only the reading has threads of its own.

    Uses are announced by :meth:`request`, which starts the reading, and made by :meth:`take`, in any order. A row group
    stays in memory while announced uses of it are open. Beyond both bounds the others are dropped, the least recently
    used first, and those with all rows used before those in the middle of their use.

    Args:
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
        uri: str,
        manifest: Manifest,
        *,
        least: int,
        budget: int,
        readers: int = 1,
        disk: DiskCache | None = None,
        uses: NDArray[np.int64] | None = None,
    ) -> None:
        self._locations = [
            _GroupLocation(shard, index, rows * _sample_bytes(shard, manifest))
            for shard in manifest.shards
            for index, rows in enumerate(group_sizes(shard))
        ]
        self.rows = group_rows(manifest)
        self._uses = self.rows if uses is None else uses
        self._least, self._budget, self._readers = least, budget, readers
        self._reader, self._disk = ShardReader(uri, manifest), disk
        self._executor = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="reader")
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self.bytes = 0
        self._open: Counter[int] = Counter()  # announced uses

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
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
        kept = self._disk and self._disk.load(location.shard, location.index)
        if kept:
            return kept
        group = self._reader.read(location.shard, location.index)
        if self._disk:
            self._disk.store(location.shard, location.index, group)
        return group


def group_sizes(shard: Shard) -> list[int]:
    """Return the rows of every row group of ``shard``: all full but the last."""
    full, rest = divmod(shard.rows, shard.group_rows)
    return [shard.group_rows] * full + ([rest] if rest else [])


def group_rows(manifest: Manifest) -> NDArray[np.int64]:
    """Return the rows of every row group of a dataset."""
    return np.concatenate([group_sizes(shard) for shard in manifest.shards])


def _sample_bytes(shard: Shard, manifest: Manifest) -> int:
    return 3 * shard.height * shard.width * (manifest.frames + manifest.scale**2)
