"""The sample order: a pure function of (seed, step, slot), each sample once an epoch, read sequentially."""

from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mana_dist.data import order as module
from mana_dist.data.order import SampleOrder, augmentation, check_version, is_reversed, lane_index, slots_of
from mana_dist.errors import UserError
from tests.data import slow_order

# By tests/data/slow_order.py.
GOLDEN_ORDER = [
    *[(3, 0), (0, 0), (2, 3), (2, 0)],
    *[(0, 2), (1, 0), (2, 1), (1, 1)],
    *[(0, 1), (2, 2), (0, 1), (1, 0)],
]
GOLDEN_AUGMENTATION = (12, 22, True, False, False)

group_rows = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def order(rows: list[int], batch_size: int, shuffle_groups: int = 4, seed: int = 0) -> SampleOrder:
    return SampleOrder(np.array(rows), batch_size, shuffle_groups, seed)


@settings(deadline=None, max_examples=60)
@given(group_rows, st.integers(1, 20), st.integers(1, 6), st.integers(0, 5))
def test_each_sample_comes_once_an_epoch(rows: list[int], batch_size: int, shuffle_groups: int, seed: int) -> None:
    """Also where the batch does not divide the dataset, or is larger than it."""
    total = sum(rows)
    everything = {(group, row) for group, count in enumerate(rows) for row in range(count)}
    subject = order(rows, batch_size, shuffle_groups, seed)
    stream = [subject.sample(*divmod(number, batch_size)) for number in range(3 * total)]
    for epoch in range(3):
        assert set(stream[epoch * total : (epoch + 1) * total]) == everything


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(1, 9))
def test_samples_come_as_often_in_an_epoch_as_they_should(repeats: list[list[int]], batch_size: int) -> None:
    wanted = Counter({(g, row): often for g, group in enumerate(repeats) for row, often in enumerate(group)})
    rows, often = np.array([len(group) for group in repeats]), np.concatenate(repeats)
    subject = SampleOrder(rows, batch_size, 2, 1, often)
    stream = [tuple(subject.sample(*divmod(number, batch_size))) for number in range(2 * subject.total)]
    assert Counter(stream[: subject.total]) == Counter(stream[subject.total :]) == wanted
    assert subject.total == sum(subject.group_uses) == wanted.total()


def test_samples_that_come_once_each_come_as_without_counts() -> None:
    rows = np.array([3, 2, 4])
    with_counts, without = (SampleOrder(rows, 4, 2, 7, often) for often in (np.ones(9, np.int64), None))
    for number in range(30):
        assert with_counts.sample(*divmod(number, 4)) == without.sample(*divmod(number, 4))


@pytest.mark.parametrize("often", [[1, 1], [1, 1, 0], [1, 1, 1, 1]])
def test_counts_that_are_not_the_rows_are_refused(often: list[int]) -> None:
    with pytest.raises(ValueError, match="every row must come at least once"):
        SampleOrder(np.array([2, 1]), 1, 1, 0, np.array(often))


@settings(deadline=None, max_examples=30)
@given(group_rows, st.integers(1, 20), st.integers(0, 500))
def test_any_step_can_come_first(rows: list[int], batch_size: int, step: int) -> None:
    """Resuming needs no history: a fresh object gives what a long-used one gives."""
    used = order(rows, batch_size)
    for earlier in range(min(step, 20)):
        used.sample(earlier, 0)
    fresh = order(rows, batch_size)
    for slot in range(batch_size):
        assert fresh.sample(step, slot) == used.sample(step, slot)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40))
def test_workers_share_the_slots_without_gap_or_overlap(batch_size: int, world_size: int) -> None:
    shares = [slots_of(rank, world_size, batch_size) for rank in range(world_size)]
    assert [slot for share in shares for slot in share] == list(range(batch_size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_order_of_a_seed_is_fixed_for_good() -> None:
    """A golden value: a change here is another version of the order, under which no run that was begun can go on."""
    subject = order([3, 2, 4, 1], batch_size=4, shuffle_groups=2, seed=7)
    first_epoch_and_on = [tuple(subject.sample(step, slot)) for step in range(3) for slot in range(4)]
    assert module.VERSION == 2
    assert first_epoch_and_on == GOLDEN_ORDER
    assert augmentation(7, 3, 20, 30, 8) == GOLDEN_AUGMENTATION


@settings(deadline=None, max_examples=40)
@given(group_rows, st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_the_order_is_what_its_description_says(
    rows: list[int], batch_size: int, shuffle_groups: int, seed: int, epoch: int
) -> None:
    """Against a slow one in Python's integers alone, at any epoch."""
    expected = slow_order.epoch(rows, batch_size, shuffle_groups, seed, epoch)
    subject = order(rows, batch_size, shuffle_groups, seed)
    numbers = range(epoch * subject.total, (epoch + 1) * subject.total)
    assert [subject.sample(*divmod(number, batch_size)) for number in numbers] == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**50), st.integers(8, 4000), st.integers(8, 4000))
def test_crops_and_flips_are_what_their_description_says(seed: int, number: int, height: int, width: int) -> None:
    assert augmentation(seed, number, height, width, 8) == slow_order.augmentation(seed, number, height, width, 8)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**50))
def test_reversals_are_what_their_description_says(seed: int, number: int) -> None:
    assert is_reversed(seed, number) == slow_order.is_reversed(seed, number)


def test_about_half_of_the_samples_are_reversed_whatever_their_flips() -> None:
    drawn = [(is_reversed(0, number), augmentation(0, number, 10, 12, 8)[2:]) for number in range(4000)]
    counts = Counter(drawn)
    assert len(counts) == 16
    assert all(count == pytest.approx(250, abs=70) for count in counts.values())  # over four standard deviations


def test_another_version_is_refused() -> None:
    check_version("run one", module.VERSION)
    with pytest.raises(UserError, match="run one was begun with version 1 of the sample order"):
        check_version("run one", 1)


def test_seeds_and_epochs_differ() -> None:
    rows = [4] * 16
    one = [order(rows, 8, seed=0).sample(step, slot) for step in range(8) for slot in range(8)]
    other_seed = [order(rows, 8, seed=1).sample(step, slot) for step in range(8) for slot in range(8)]
    next_epoch = [order(rows, 8, seed=0).sample(step, slot) for step in range(8, 16) for slot in range(8)]
    assert one != other_seed
    assert one != next_epoch


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 40))
def test_lanes_are_contiguous_and_cover_the_epoch(total: int, lanes: int) -> None:
    indices = [lane_index(position, total, lanes) for position in range(total)]
    assert sorted(indices) == list(range(total))
    for lane in range(min(lanes, total)):
        walk = indices[lane::lanes]
        assert walk == list(range(walk[0], walk[0] + len(walk)))


@settings(deadline=None, max_examples=40)
@given(group_rows, st.integers(1, 20), st.integers(0, 5), st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_a_changing_number_of_workers_changes_nothing(
    rows: list[int], batch_size: int, seed: int, world_sizes: list[int]
) -> None:
    """Nodes come and go, each worker with a fresh object: together they see each sample once an epoch all the same."""
    undisturbed = order(rows, batch_size, seed=seed)
    seen = []
    for step in range(max(len(world_sizes), -(-sum(rows) // batch_size))):
        world_size = min(world_sizes[step % len(world_sizes)], batch_size)
        for rank in range(world_size):
            worker = order(rows, batch_size, seed=seed)
            seen += [worker.sample(step, slot) for slot in slots_of(rank, world_size, batch_size)]
    assert seen == [undisturbed.sample(*divmod(number, batch_size)) for number in range(len(seen))]
    everything = {(group, row) for group, count in enumerate(rows) for row in range(count)}
    assert set(seen[: sum(rows)]) == everything


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 5))
def test_a_dataset_smaller_than_a_batch_is_evenly_used(rows: list[int], times: int, seed: int) -> None:
    """A batch of ``times`` epochs and a sample holds every sample that often, and one of them once more."""
    subject = order(rows, times * sum(rows) + 1, seed=seed)
    counts = Counter(subject.sample(0, slot) for slot in range(subject.batch_size))
    assert sorted(counts.values()) == [times] * (sum(rows) - 1) + [times + 1]


def test_resuming_costs_no_more_at_step_a_billion() -> None:
    """A fresh object of 20,000 row groups (160 GB of samples) that is asked for a batch of the far future."""

    def drawn(step: int) -> int:
        """Shuffles that the batch takes."""
        with mock.patch.object(module, "_permutation", wraps=module._permutation) as shuffles:
            subject = order([8] * 20_000, 16)
            for slot in range(16):
                subject.sample(step, slot)
            return shuffles.call_count

    assert drawn(10) == drawn(10**9) == 1 + 16  # one of the row groups, one in the window of each slot


class Reader:
    """Counts the row groups that a reader fetches who remembers the ``capacity`` least recently used ones."""

    def __init__(self, capacity: int) -> None:
        self.reads = 0
        self._capacity = capacity
        self._held: dict[int, None] = {}

    def fetch(self, group: int) -> None:
        if group in self._held:
            del self._held[group]
        else:
            self.reads += 1
        self._held[group] = None
        if len(self._held) > self._capacity:
            del self._held[next(iter(self._held))]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=120), st.integers(1, 20), st.integers(1, 6), st.integers(0, 5))
def test_read_amplification_is_bounded(rows: list[int], batch_size: int, shuffle_groups: int, seed: int) -> None:
    """The bound of the module's docstring, for any shapes and any number of workers: every slot by itself."""
    subject = order(rows, batch_size, shuffle_groups, seed)
    readers = [Reader(shuffle_groups) for _ in range(batch_size)]
    for number in range(sum(rows)):
        step, slot = divmod(number, batch_size)
        readers[slot].fetch(subject.sample(step, slot).group)
    bound = len(rows) + (batch_size - 1) * shuffle_groups
    assert sum(reader.reads for reader in readers) <= bound


@pytest.mark.parametrize("world_size", [1, 2, 4, 16])
@pytest.mark.parametrize("largest", [1, 8, 15])
def test_the_feeds_shared_cache_keeps_the_bound(world_size: int, largest: int) -> None:
    """A worker's slots share one memory, of a window and a group for each: see :class:`mana_dist.data.feed.Feed`.

    Where groups differ in size, lanes leave their windows at different times, and it forgets a group too early now and
    then.
    """
    groups, batch_size, shuffle_groups = 400, 16, 4
    rows = np.random.default_rng(largest).integers((largest + 1) // 2, largest + 1, groups)
    subject = order(list(rows), batch_size, shuffle_groups)
    workers = [slots_of(rank, world_size, batch_size) for rank in range(world_size)]
    readers = [Reader(len(slots) * (shuffle_groups + 1)) for slots in workers]
    for step in range(int(rows.sum()) // batch_size):
        for slots, reader in zip(workers, readers, strict=True):
            for slot in slots:
                reader.fetch(subject.sample(step, slot).group)
    bound = groups + (batch_size - 1) * shuffle_groups
    assert sum(reader.reads for reader in readers) <= (bound if largest == 1 else 1.02 * bound)


def test_a_batch_mixes_groups() -> None:
    """Lanes walk apart: a batch is not a run of neighbouring frames."""
    subject = order([8] * 64, batch_size=16)
    groups = Counter(subject.sample(5, slot).group for slot in range(16))
    assert max(groups.values()) <= 2


def test_crops_stay_inside_and_reach_everywhere() -> None:
    seen = [augmentation(0, number, 10, 12, 8) for number in range(600)]
    assert {drawn.top for drawn in seen} == {0, 1, 2}
    assert {drawn.left for drawn in seen} == {0, 1, 2, 3, 4}
    assert len({tuple(drawn)[2:] for drawn in seen}) == 8


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="row group"):
        order([], 4)
    with pytest.raises(ValueError, match="row group"):
        order([3, 0], 4)
