"""The training feed: the batches that :mod:`mana_dist.data.order` prescribes, prepared ahead of their use.

The order is fixed in advance, so threads fetch and decode row groups before their samples are due. Threads, caches and
storage do not change the batches.

A worker's slots walk along lanes, one window of row groups after the other, and a row group stays in memory until its
window is done. So a worker reads every row group of its lanes once an epoch. The window in which one lane ends and the
next begins is read for both: at most ``data.shuffle_groups`` row groups more for every slot of a batch and epoch,
whatever the number of workers, unless a cache still has them.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mana_dist.config import DataConfig
from mana_dist.data.cache import DiskCache
from mana_dist.data.mixture import Dataset, group_rows
from mana_dist.data.motion import read_repeats
from mana_dist.data.order import Augmentation, SampleOrder, SampleRef, augmentation, is_reversed, slots_of
from mana_dist.data.row_groups import RowGroups

_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}  # cv2.flip's codes for (vertical, horizontal)
_STEPS_AHEAD = 256  # more than a shuffle window of whole frames lasts


class Batch(NamedTuple):
    """A worker's share of one global batch."""

    lr: Tensor  # (n, T, 3, crop, crop) uint8
    hr: Tensor  # (n, 3, 4 crop, 4 crop) uint8, the centre frames


class Feed:
    """Endless batches for one worker, prepared ahead in background threads.

    Args:
        datasets: the run's.
        config: batch size, crop, reversal, shuffle window, readers, caches and batches ahead.
        frames: T of the model; the centre T of the samples' frames are delivered.
        seed, rank, world_size: the run's.
        start_step: the first global step to deliver.

    Attributes:
        waited: seconds that :func:`next` has waited for batches.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        config: DataConfig,
        frames: int,
        seed: int,
        *,
        rank: int,
        world_size: int,
        start_step: int,
    ) -> None:
        self._config = config
        self._frames = frames
        self._seed = seed
        self._slots = slots_of(rank, world_size, config.batch_size)
        repeats = read_repeats(datasets, config.motion, config.readers)
        self._order = SampleOrder(group_rows(datasets), config.batch_size, config.shuffle_groups, seed, repeats)
        limit = config.disk_cache_mb * 2**20
        self._groups = RowGroups(
            datasets,
            # A lane is in one shuffle window at a time; the extra group is the first of its next window.
            least=len(self._slots) * (config.shuffle_groups + 1),
            budget=config.cache_mb * 2**20,
            readers=config.readers,
            disk=DiskCache(config.disk_cache, limit, datasets) if config.disk_cache else None,
            uses=self._order.group_uses,
        )
        # One thread looks ahead and puts batches together, so that neither needs a lock.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
        self._plan: deque[list[SampleRef]] = deque()
        self._step = start_step
        self._ahead: deque[Future[Batch]] = deque()
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Return the next global step's share."""
        while len(self._ahead) <= self._config.prefetch:
            self._ahead.append(self._executor.submit(self._next_batch))
        before = time.perf_counter()
        batch = self._ahead.popleft().result()
        self.waited += time.perf_counter() - before
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._groups.__exit__(*error)  # ends the waiting for row groups
        self._executor.shutdown(wait=True)

    def _next_batch(self) -> Batch:
        """Return this worker's share of the next global step."""
        self._look_ahead()
        step, references = self._step, self._plan.popleft()
        self._step += 1
        samples = [self._sample(step, *place) for place in zip(self._slots, references, strict=True)]
        lr = torch.from_numpy(np.stack([lr for lr, _ in samples])).permute(0, 1, 4, 2, 3)
        hr = torch.from_numpy(np.stack([hr for _, hr in samples])).permute(0, 3, 1, 2)
        return Batch(lr, hr)

    def _look_ahead(self) -> None:
        """Announce the row groups of coming steps in the order of their use, as far as memory reaches."""
        while not self._plan or (len(self._plan) < _STEPS_AHEAD and self._groups.may_read_ahead):
            references = [self._order.sample(self._step + len(self._plan), slot) for slot in self._slots]
            for reference in references:
                self._groups.request(reference.group)
            self._plan.append(references)

    def _sample(self, step: int, slot: int, reference: SampleRef) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        group = self._groups.take(reference.group)
        lr, hr = centre_frames(group.lr[reference.row], self._frames), group.hr[reference.row]
        number = step * self._config.batch_size + slot
        if self._config.reverse and is_reversed(self._seed, number):
            lr = lr[::-1]  # the centre frame, whose HR frame it is, stays the centre
        drawn = augmentation(self._seed, number, lr.shape[1], lr.shape[2], self._config.crop)
        return augment(lr, hr, drawn, self._config.crop)


def centre_frames(lr: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
    """Return the middle ``frames`` of a sample's LR frames (T, h, w, 3)."""
    start = (lr.shape[0] - frames) // 2
    return lr[start : start + frames]


def augment(
    lr: NDArray[np.uint8], hr: NDArray[np.uint8], drawn: Augmentation, crop: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Crop a sample to ``crop`` LR pixels per side, flip and transpose it; LR is a copy, HR may be a view."""
    scale = hr.shape[0] // lr.shape[1]
    scaled = drawn._replace(top=drawn.top * scale, left=drawn.left * scale)
    return np.stack([_augment(frame, drawn, crop) for frame in lr]), _augment(hr, scaled, crop * scale)


def _augment(frame: NDArray[np.uint8], drawn: Augmentation, crop: int) -> NDArray[np.uint8]:
    # By OpenCV: NumPy copies a turned picture value by value, which took four times as long.
    frame = frame[drawn.top : drawn.top + crop, drawn.left : drawn.left + crop]
    if drawn.flip_vertical or drawn.flip_horizontal:
        frame = cv2.flip(frame, _FLIPS[drawn.flip_vertical, drawn.flip_horizontal])
    return cv2.transpose(frame) if drawn.transpose else frame
