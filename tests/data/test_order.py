"""The sample order: a pure function of (seed, step, slot), each sample once an epoch, read sequentially."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mana_dist.data.order import SampleOrder, augmentation, lane_index, slots_of

GOLDEN_ORDER = [
    *[(3, 0), (0, 2), (2, 0), (0, 1)],
    *[(1, 0), (2, 1), (0, 0), (2, 2)],
    *[(1, 1), (2, 3), (2, 0), (2, 1)],
]
GOLDEN_AUGMENTATION = (12, 2, True, False, False)

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


@settings(deadline=None, max_examples=30)
@given(group_rows, st.integers(1, 20), st.integers(0, 500))
def test_any_step_can_be_asked_first(rows: list[int], batch_size: int, step: int) -> None:
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
    """A golden value: a change here breaks the resuming of every run there is."""
    subject = order([3, 2, 4, 1], batch_size=4, shuffle_groups=2, seed=7)
    first_epoch_and_on = [tuple(subject.sample(step, slot)) for step in range(3) for slot in range(4)]
    assert first_epoch_and_on == GOLDEN_ORDER
    assert augmentation(7, 3, 20, 30, 8) == GOLDEN_AUGMENTATION


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


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_worker_reads_little_more_than_its_share(world_size: int) -> None:
    """Over an epoch, with a cache of one window a lane, row groups are read about once.

    Each lane can share the window at either end with its neighbours: at most ``shuffle_groups`` groups a border more.
    """
    groups, rows, batch_size, shuffle_groups = 400, 8, 16, 4
    subject = order([rows] * groups, batch_size, shuffle_groups)
    steps = groups * rows // batch_size
    for rank in range(world_size):
        slots = slots_of(rank, world_size, batch_size)
        cache: dict[int, None] = {}
        reads = 0
        for step in range(steps):
            for slot in slots:
                group = subject.sample(step, slot).group
                if group in cache:
                    del cache[group]
                else:
                    reads += 1
                cache[group] = None
                if len(cache) > len(slots) * (shuffle_groups + 1):
                    del cache[next(iter(cache))]
        assert reads <= groups * len(slots) / batch_size + len(slots) * shuffle_groups


def test_a_batch_mixes_groups() -> None:
    """Lanes walk apart: a batch is not a run of neighbouring frames."""
    subject = order([8] * 64, batch_size=16)
    groups = Counter(subject.sample(5, slot).group for slot in range(16))
    assert max(groups.values()) <= 2


def test_crops_stay_inside_and_reach_everywhere() -> None:
    seen = [augmentation(0, number, 10, 12, 8) for number in range(600)]
    assert {how.top for how in seen} == {0, 1, 2}
    assert {how.left for how in seen} == {0, 1, 2, 3, 4}
    assert len({tuple(how)[2:] for how in seen}) == 8


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="row group"):
        order([], 4)
    with pytest.raises(ValueError, match="row group"):
        order([3, 0], 4)
