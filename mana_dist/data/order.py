"""The order of samples: sample, crop, flip and reversal in a slot of a global batch, pure in (seed, step, slot).

It does not depend on workers, nodes or restarts: any worker may serve any slot at any time and gets the same sample, so
a run resumes at step s by starting with step s.

The order also reads sequentially. In each epoch the row groups are shuffled, and rows are shuffled inside windows of a
few consecutive row groups; the resulting sequence is cut into as many contiguous pieces, *lanes*, as a batch has
slots, and a slot walks along one lane. A worker therefore reads only its slots' lanes, one row group after the other,
and holds no more than one window for each.

Read amplification is bounded: a window is read once by each lane that reaches into it, so each of the
``batch_size - 1`` borders between lanes costs one window more. In an epoch any number of workers together read at most
``groups + (batch_size - 1) * shuffle_groups`` row groups, where ``groups`` is the dataset's number: with 16 slots,
windows of 4 and row groups of 8 MiB, half a GB more than the dataset, 5 % of one of 10 GB. For that a worker must keep
``shuffle_groups`` row groups for each of its slots.

Epochs follow each other without a gap: sample number k = step * batch_size + slot belongs to epoch k // total, every
sample comes exactly once in it (or as often as :mod:`mana_dist.data.motion` says), and a batch may hold the end of one
epoch and the start of the next (or, with a dataset smaller than a batch, several epochs).

All random numbers come from :mod:`mana_dist.data.philox`, so that every version of NumPy and every machine has the same
order. A change of the order raises :data:`VERSION`, which every run records.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.philox import WORD, philox
from mana_dist.errors import UserError

VERSION = 2
UNRECORDED = 1
"""Version of a run without a record of it, drawn by NumPy's own generators."""

# Separate the random streams that share one seed.
_GROUPS, _ROWS, _AUGMENT, _REVERSE = 1, 2, 3, 4


class SampleRef(NamedTuple):
    """A sample's place in the dataset: number of the row group over all shards, row in it."""

    group: int
    row: int


class Augmentation(NamedTuple):
    """A sample's LR crop offset in pixels, then its flips, then the transpose of height and width."""

    top: int
    left: int
    flip_vertical: bool
    flip_horizontal: bool
    transpose: bool


@dataclass(frozen=True, eq=False)
class _Epoch:
    """One epoch's sequence: shuffled groups, and where each shuffle window starts in the sequence."""

    groups: NDArray[np.int64]
    window_starts: NDArray[np.int64]


class SampleOrder:
    """The endless order of a dataset's samples (see the module's docstring).

    Args:
        group_rows: rows of each row group, in the dataset's order; all positive.
        batch_size: slots of a global batch.
        shuffle_groups: row groups to a shuffle window.
        seed: the run's seed.
        repeats: how often each row comes in an epoch, at least once, over all row groups; None: all once.

    Attributes:
        group_uses: samples of each row group in an epoch.
        total: samples of an epoch.
    """

    def __init__(
        self,
        group_rows: NDArray[np.int64],
        batch_size: int,
        shuffle_groups: int,
        seed: int,
        repeats: NDArray[np.int64] | None = None,
    ) -> None:
        group_rows = np.asarray(group_rows, dtype=np.int64)
        if group_rows.size == 0 or group_rows.min() < 1:
            raise ValueError("every row group must hold at least one row, and there must be one")
        if repeats is not None and (repeats.size != group_rows.sum() or repeats.min() < 1):
            raise ValueError("every row must come at least once, and none but those of the row groups")
        self._group_rows, self._repeats = group_rows, repeats
        self._starts = np.cumsum(group_rows) - group_rows
        self.group_uses = group_rows if repeats is None else np.add.reduceat(repeats, self._starts)
        self.total = int(self.group_uses.sum())
        self.batch_size = batch_size
        self.shuffle_groups = shuffle_groups
        self.seed = seed
        # Two epochs can share a batch (more with a tiny dataset); a slot stays in one window for many steps.
        self._epoch = lru_cache(maxsize=4)(self._make_epoch)
        self._window = lru_cache(maxsize=4 * batch_size)(self._make_window)

    def sample(self, step: int, slot: int) -> SampleRef:
        """Return the sample in ``slot`` (0 to batch_size - 1) of global step ``step`` (from 0)."""
        epoch, position = divmod(step * self.batch_size + slot, self.total)
        sequence_index = lane_index(position, self.total, self.batch_size)
        starts = self._epoch(epoch).window_starts
        window = int(np.searchsorted(starts, sequence_index, side="right")) - 1
        groups, rows = self._window(epoch, window)
        offset = sequence_index - int(starts[window])
        return SampleRef(int(groups[offset]), int(rows[offset]))

    def _make_epoch(self, epoch: int) -> _Epoch:
        groups = _permutation(self.seed, _GROUPS, epoch, 0, self.group_uses.size)
        ends = np.cumsum(self.group_uses[groups])
        starts = np.concatenate([[0], ends[:-1]])
        return _Epoch(groups, starts[:: self.shuffle_groups])

    def _make_window(self, epoch: int, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return group and row of every place of a window, in shuffled order."""
        first = window * self.shuffle_groups
        members = self._epoch(epoch).groups[first : first + self.shuffle_groups]
        uses = self.group_uses[members]
        order = _permutation(self.seed, _ROWS, epoch, window, int(uses.sum()))
        row_in_group = np.concatenate([self._rows(group) for group in members])
        return np.repeat(members, uses)[order], row_in_group[order]

    def _rows(self, group: int) -> NDArray[np.int64]:
        """Return a row group's rows, each as often as it comes."""
        start, count = self._starts[group], self._group_rows[group]
        rows = np.arange(count)
        return rows if self._repeats is None else np.repeat(rows, self._repeats[start : start + count])


def evenly_spaced(count: int, among: int) -> NDArray[np.int64]:
    """Return at most ``count`` different numbers from 0 to ``among`` - 1, with both of these."""
    return np.unique(np.linspace(0, among - 1, min(count, among)).round().astype(int))


def lane_index(position: int, total: int, lanes: int) -> int:
    """Return the index, in its sequence of ``total``, of an epoch's ``position``-th sample.

    Lane l owns a contiguous piece of the sequence; the first ``total % lanes`` lanes are one longer. Positions deal
    the lanes round robin, so this is a bijection of [0, total).
    """
    depth, lane = divmod(position, lanes)
    length, longer = divmod(total, lanes)
    return lane * length + min(lane, longer) + depth


def augmentation(seed: int, sample_number: int, height: int, width: int, crop: int) -> Augmentation:
    """Return the random crop, flips and transpose of global sample number step * batch_size + slot.

    The LR frame's sides are at least ``crop``.
    """
    first, second, flips, _ = philox((0, 0, *_stream(_AUGMENT, sample_number)), _key(seed))
    # A share of 2^32 for each place; they differ by one at most.
    top, left = first * (height - crop + 1) >> 32, second * (width - crop + 1) >> 32
    return Augmentation(top, left, bool(flips & 1), bool(flips & 2), bool(flips & 4))


def is_reversed(seed: int, sample_number: int) -> bool:
    """Return whether ``data.reverse`` lets the frames of global sample number step * batch_size + slot run backwards.

    Drawn from a stream of its own: with reversal or without, crops and flips are the same.
    """
    word, *_ = philox((0, 0, *_stream(_REVERSE, sample_number)), _key(seed))
    return bool(word & 1)


def slots_of(rank: int, world_size: int, batch_size: int) -> range:
    """Return the slots that worker ``rank`` of ``world_size`` serves: contiguous, sizes differing by one at most."""
    return range(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)


def check_version(name: str, version: int) -> None:
    """Check that a run or sweep begun with ``version`` of the order goes on with the same samples.

    Raises:
        UserError: it does not.
    """
    if version != VERSION:
        raise UserError(
            f"{name} was begun with version {version} of the sample order, this mana_dist has version {VERSION}, which "
            "would train on other samples; go on with the mana_dist that began it, or give another run.name to start "
            "anew"
        )


def _permutation(seed: int, stream: int, number: int, part: int, size: int) -> NDArray[np.int64]:
    """Return ``size`` numbers from 0 on in random order: sorted by random keys of 64 bits."""
    a, b, c = (np.full(size, word, dtype=np.uint64) for word in (part, *_stream(stream, number)))
    low, high, *_ = philox((np.arange(size, dtype=np.uint64), a, b, c), _key(seed))
    # Stable, so that equal keys, which are next to impossible, leave no choice to the sorting.
    return np.argsort(high << np.uint64(32) | low, kind="stable")


def _key(seed: int) -> tuple[int, int]:
    return seed & WORD, seed >> 32 & WORD


def _stream(stream: int, number: int) -> tuple[int, int]:
    """Return two words of a counter: the stream, and a number of up to 56 bits in it."""
    return number & WORD, number >> 32 | stream << 24
