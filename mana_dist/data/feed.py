"""The training feed: the batches that :mod:`mana_dist.data.order` prescribes, read from Parquet shards by pyarrow."""

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mana_dist import storage
from mana_dist.config import DataConfig
from mana_dist.data.manifest import Manifest, Shard, load_manifest
from mana_dist.data.order import Augmentation, SampleOrder, augmentation, slots_of
from mana_dist.data.samples import SampleGroup, read_row_group
from mana_dist.errors import UserError


class Batch(NamedTuple):
    """A worker's share of one global batch.

    Attributes:
        lr: (n, T, 3, crop, crop) uint8.
        hr: (n, 3, 4 crop, 4 crop) uint8, the centre frames.
    """

    lr: Tensor
    hr: Tensor


@dataclass(frozen=True)
class _GroupLocation:
    """Where a row group lies: its shard, and its number in the shard's file."""

    shard: Shard
    index: int


class RowGroups:
    """All row groups of a dataset, numbered over its shards, behind a cache of bounded size.

    Args:
        uri: the dataset's folder.
        manifest: its manifest.
        least: row groups to keep in memory in any case.
        budget: bytes of row groups to keep beyond that, least recently used out first.
    """

    def __init__(self, uri: str, manifest: Manifest, least: int, budget: int) -> None:
        self._filesystem, self._root = storage.filesystem(uri)
        self._locations: list[_GroupLocation] = []
        rows: list[int] = []
        for shard in manifest.shards:
            counts = group_sizes(shard)
            rows += counts
            self._locations += [_GroupLocation(shard, index) for index in range(len(counts))]
        self.rows: NDArray[np.int64] = np.array(rows, dtype=np.int64)
        self._least, self._budget = least, budget
        self._cache: OrderedDict[int, SampleGroup] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, group: int) -> SampleGroup:
        """Row group number ``group``."""
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        location = self._locations[group]
        read = read_row_group(self._filesystem, storage.join(self._root, location.shard.path), location.index)
        self._cache[group] = read
        self._bytes += _size(read)
        while len(self._cache) > self._least and self._bytes > self._budget:
            self._bytes -= _size(self._cache.popitem(last=False)[1])
        return read


def _size(group: SampleGroup) -> int:
    return group.lr.nbytes + group.hr.nbytes


def group_sizes(shard: Shard) -> list[int]:
    """Rows of each row group of ``shard``: all full but the last."""
    full, rest = divmod(shard.rows, shard.group_rows)
    return [shard.group_rows] * full + ([rest] if rest else [])


class Feed:
    """Endless batches for one worker, prepared ahead in a background thread.

    Args:
        uri: the dataset's folder.
        manifest: the dataset's manifest, as the run was started with.
        config: batch size, crop, shuffle window and batches ahead.
        frames: T, the frames that the model takes; the centre T of the samples' frames.
        seed: the run's seed.
        rank: this worker's rank.
        world_size: workers in all.
        start_step: the first global step to deliver.
    """

    def __init__(
        self,
        uri: str,
        manifest: Manifest,
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
        # Each lane walks through one shuffle window at a time; the group more is of the window it walks into.
        least = len(self._slots) * (config.shuffle_groups + 1)
        self._groups = RowGroups(uri, manifest, least, config.cache_mb * 2**20)
        self._order = SampleOrder(self._groups.rows, config.batch_size, config.shuffle_groups, seed)
        # One thread: pyarrow decodes without the interpreter lock, and the cache needs no lock of its own.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
        self._next_step = start_step
        self._ahead: deque[Future[Batch]] = deque()
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next global step's share; the seconds spent waiting for it are added to ``waited``."""
        while len(self._ahead) <= self._config.prefetch:
            self._ahead.append(self._executor.submit(self.batch, self._next_step))
            self._next_step += 1
        before = time.perf_counter()
        batch = self._ahead.popleft().result()
        self.waited += time.perf_counter() - before
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """This worker's share of global step ``step``."""
        samples = [self._sample(step, slot) for slot in self._slots]
        lr = torch.from_numpy(np.stack([lr for lr, _ in samples])).permute(0, 1, 4, 2, 3)
        hr = torch.from_numpy(np.stack([hr for _, hr in samples])).permute(0, 3, 1, 2)
        return Batch(lr, hr)

    def _sample(self, step: int, slot: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        reference = self._order.sample(step, slot)
        group = self._groups[reference.group]
        lr, hr = centre_frames(group.lr[reference.row], self._frames), group.hr[reference.row]
        number = step * self._config.batch_size + slot
        how = augmentation(self._seed, number, lr.shape[1], lr.shape[2], self._config.crop)
        return augment(lr, hr, how, self._config.crop)


def centre_frames(lr: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
    """The middle ``frames`` of a sample's LR frames (T, h, w, 3)."""
    start = (lr.shape[0] - frames) // 2
    return lr[start : start + frames]


def augment(
    lr: NDArray[np.uint8], hr: NDArray[np.uint8], how: Augmentation, crop: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Crop, flip and transpose a sample, LR and HR alike.

    Args:
        lr: (T, h, w, 3).
        hr: (4h, 4w, 3).
        how: what to do.
        crop: side of the LR crop.

    Returns:
        LR (T, crop, crop, 3) and HR (4 crop, 4 crop, 3); views of the inputs.
    """
    scale = hr.shape[0] // lr.shape[1]
    lr = _augment(lr, how, crop)
    hr = _augment(hr[np.newaxis], how._replace(top=how.top * scale, left=how.left * scale), crop * scale)
    return lr, hr[0]


def _augment(frames: NDArray[np.uint8], how: Augmentation, crop: int) -> NDArray[np.uint8]:
    frames = frames[:, how.top : how.top + crop, how.left : how.left + crop]
    frames = frames[:, :: -1 if how.flip_vertical else 1, :: -1 if how.flip_horizontal else 1]
    return frames.swapaxes(1, 2) if how.transpose else frames


def check_dataset(uri: str, key: str, frames: int, crop: int) -> Manifest:
    """The manifest of a dataset that a training can use.

    Args:
        uri: the dataset's folder.
        key: the configuration key that named it, for the message.
        frames: T of the model.
        crop: side of the LR crop.

    Raises:
        UserError: no manifest, no samples, samples of fewer frames than T, or frames smaller than the crop.
    """
    manifest = load_manifest(uri)
    if manifest.samples == 0:
        raise UserError(f"{key}: {uri} holds no samples; its manifest says why under 'rejected'")
    if manifest.frames < frames:
        raise UserError(
            f"{key}: samples in {uri} have {manifest.frames} frames, model.frames is {frames}; "
            f"ingest with --frames-per-sample {frames} or lower model.frames"
        )
    smallest = min(manifest.shards, key=lambda shard: min(shard.height, shard.width))
    side = min(smallest.height, smallest.width)
    if side < crop:
        raise UserError(
            f"{key}: {uri} holds LR frames of {smallest.width}x{smallest.height}, smaller than data.crop {crop}; "
            f"lower data.crop to {side} or less, or leave the small clips out"
        )
    return manifest
