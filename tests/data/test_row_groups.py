"""Row groups are read ahead, once while they are needed, and memory stays within its bounds."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mana_dist.config import DataConfig
from mana_dist.data.config import SampleSettings
from mana_dist.data.feed import Feed
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.mixture import Dataset, group_sizes
from mana_dist.data.order import SampleOrder, slots_of
from mana_dist.data.row_groups import RowGroups
from mana_dist.data.samples import SampleGroup
from tests.data.shards import counted_storage, noise_dataset

FRAMES = 1
CONFIG = DataConfig(crop=1, cache_mb=0, prefetch=1)
SAMPLE_BYTES = 3 * (FRAMES + 16)


def manifest(rows: list[int], group_rows: int) -> Manifest:
    """Shards of that many rows, of samples of a single pixel."""
    shards = tuple(Shard(f"{i}.parquet", count, group_rows, 1, 1, 0, "") for i, count in enumerate(rows))
    empty = SampleSettings(frames_per_sample=FRAMES).empty_manifest()
    return dataclasses.replace(empty, samples=sum(rows), shards=shards)


class CountingReader:
    """Stands in for the reading of shards: blank samples, and a count of the reads."""

    def __init__(self, *_: object) -> None:
        self.reads: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def read(self, shard: Shard, index: int) -> SampleGroup:
        rows = group_sizes(shard)[index]
        with self._lock:
            self.reads.append((shard.path, index))
        blank = np.zeros((rows, FRAMES, 1, 1, 3), dtype=np.uint8)
        return SampleGroup(blank, np.zeros((rows, 4, 4, 3), dtype=np.uint8))

    def close(self) -> None:
        """Nothing waits here."""


def reads_of(data: Manifest, config: DataConfig, rank: int, world_size: int, steps: int) -> list[tuple[str, int]]:
    """What the feed reads for that many batches, what it reads ahead included."""
    reader = CountingReader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mana_dist.data.row_groups.ShardReader", lambda *_: reader)
        with Feed([Dataset("x", data)], config, FRAMES, 0, rank=rank, world_size=world_size, start_step=0) as feed:
            for _ in range(steps):
                next(feed)
    return reader.reads


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_a_row_group_is_read_once_for_each_lane_that_crosses_it(
    rows: list[int], group_rows: int, batch_size: int, world_size: int, shuffle_groups: int, readers: int
) -> None:
    """Against the walk of each slot over an epoch, with no memory to spare, for any shapes and number of workers."""
    world_size = min(world_size, batch_size)
    data = manifest(rows, group_rows)
    config = dataclasses.replace(CONFIG, batch_size=batch_size, shuffle_groups=shuffle_groups, readers=readers)
    counts = np.concatenate([group_sizes(shard) for shard in data.shards])
    order = SampleOrder(counts, batch_size, shuffle_groups, 0)
    steps = sum(rows) // batch_size
    for rank in range(world_size):
        slots = slots_of(rank, world_size, batch_size)
        walks = [{order.sample(step, slot).group for step in range(steps)} for slot in slots]
        # Beyond the epoch: batches prepared, a plan that keeps the readers busy, and its last step as a whole.
        ahead = (config.prefetch + 1) * len(slots) + 2 * readers + len(slots)
        assert len(reads_of(data, config, rank, world_size, steps)) <= sum(map(len, walks)) + ahead


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_lanes_that_share_no_window_read_each_row_group_once_an_epoch(world_size: int) -> None:
    """Four lanes of three windows of four row groups of four; the readers then go on into the next epoch."""
    data = manifest([4 * 48], group_rows=4)
    config = dataclasses.replace(CONFIG, batch_size=4, readers=1)
    reads = [reads_of(data, config, rank, world_size, steps=48) for rank in range(world_size)]
    firsts = [index for worker in reads for _, index in worker[: 48 // world_size]]
    assert sorted(firsts) == list(range(48))
    ahead = 2 * config.readers + (config.prefetch + 2) * (4 // world_size)
    assert all(len(worker) <= 48 // world_size + ahead for worker in reads)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_an_epoch_reads_little_more_than_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    """Bytes from storage for each sample delivered, against its bytes in the shards, with nothing kept for later.

    Three epochs: footers, the windows that neighbouring lanes share (at most 5 x 4 of 150 row groups), and what is read
    ahead at the end, all included.
    """
    manifest_ = noise_dataset(str(tmp_path), 1200, group_rows=8, side=24)
    storage = counted_storage(monkeypatch)
    config = DataConfig(batch_size=6, crop=24, cache_mb=0, prefetch=1)
    datasets = [Dataset(str(tmp_path), manifest_)]
    for rank in range(world_size):
        with Feed(datasets, config, 3, 0, rank=rank, world_size=world_size, start_step=0) as feed:
            for _ in range(600):
                next(feed)
    stored = 3 * sum(shard.bytes for shard in manifest_.shards)
    print(f"{world_size} workers: {storage.bytes / stored:.3f} of the samples' own bytes")
    assert storage.bytes <= 1.3 * stored


def test_readers_are_ahead_of_the_use() -> None:
    """The next row groups are on their way while nobody asks for a batch."""
    groups = RowGroups([Dataset("x", manifest([12], 1))], least=1, budget=0, readers=2)
    started: list[int] = []
    enough, release = threading.Event(), threading.Event()

    def slow(shard: Shard, index: int) -> SampleGroup:
        started.append(index)
        if len(started) == 2:
            enough.set()
        assert release.wait(60)
        return CountingReader().read(shard, index)

    groups._readers_of["x"].read = slow  # type: ignore[method-assign]
    with groups:
        for group in (5, 3, 8, 1):
            assert groups.may_read_ahead
            groups.request(group)
        assert not groups.may_read_ahead
        assert enough.wait(60)
        assert sorted(started) == [3, 5]
        release.set()
        for group in (3, 5, 8, 1):
            groups.take(group)
        assert groups.may_read_ahead


def test_row_groups_that_are_used_up_go_first_and_the_last_used_stay() -> None:
    reader = CountingReader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mana_dist.data.row_groups.ShardReader", lambda *_: reader)
        groups = RowGroups([Dataset("x", manifest([2, 2, 2, 2], 2))], least=1, budget=2 * 2 * SAMPLE_BYTES)
    with groups:
        for group in (0, 1, 1, 2):  # row group 1 is used up, 0 and 2 are in the middle of their use
            groups[group]
        groups[0]
        assert [int(path[0]) for path, _ in reader.reads] == [0, 1, 2]
        groups[1]
        assert [int(path[0]) for path, _ in reader.reads] == [0, 1, 2, 1]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2000), st.integers(1, 5), st.lists(st.integers(0, 19), min_size=1, max_size=200))
def test_memory_stays_within_the_larger_bound(budget: int, least: int, uses: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mana_dist.data.row_groups.ShardReader", CountingReader)
        groups = RowGroups([Dataset("x", manifest([60], 3))], least=least, budget=budget)
    one = 3 * SAMPLE_BYTES
    with groups:
        for group in uses:
            groups.request(group)
            groups.take(group)
            assert groups.bytes <= max(budget, (least + 1) * one)
