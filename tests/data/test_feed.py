"""The feed delivers exactly what the order prescribes, whatever the number of workers."""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mana_dist.config import DataConfig
from mana_dist.data.config import SampleSettings
from mana_dist.data.feed import Feed, augment, centre_frames
from mana_dist.data.manifest import Manifest, Shard, check_dataset, load_manifest, save_manifest
from mana_dist.data.mixture import Dataset
from mana_dist.data.order import Augmentation, SampleOrder, augmentation, is_reversed
from mana_dist.data.samples import Sample, ShardWriter
from mana_dist.errors import UserError
from tests.data.shards import counted_storage

FRAMES, HEIGHT, WIDTH = 7, 10, 12


def sample(clip: int, centre: int) -> Sample:
    """Pixels that tell clip, centre, frame, row, column and channel apart; HR holds its LR pixel's values."""
    rng = np.random.default_rng((clip, centre))
    lr = rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    hr = lr[FRAMES // 2].repeat(4, axis=0).repeat(4, axis=1)
    return Sample(lr, hr, centre, flow=0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("dataset"))
    shards: list[Shard] = []
    one = sample(0, 0)
    for clip, count in enumerate([5, 2, 9]):
        stem = f"clip{clip}"
        writer = ShardWriter(
            folder, stem=stem, unit=stem, group_bytes=2 * (one.lr.nbytes + one.hr.nbytes), shard_bytes=1
        )
        for centre in range(count):
            writer.add(sample(clip, centre), clip=stem, source=stem)
        shards += writer.close()
    save_manifest(folder, manifest(tuple(shards)))
    return folder


def manifest(shards: tuple[Shard, ...]) -> Manifest:
    empty = SampleSettings(frames_per_sample=FRAMES).empty_manifest()
    return dataclasses.replace(empty, samples=sum(shard.rows for shard in shards), shards=shards)


CONFIG = DataConfig(batch_size=5, crop=4, shuffle_groups=2, prefetch=2)


def feed(
    dataset: str,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    frames: int = FRAMES,
    config: DataConfig = CONFIG,
) -> Feed:
    datasets = [Dataset(dataset, load_manifest(dataset))]
    return Feed(datasets, config, frames, 3, rank=rank, world_size=world_size, start_step=start_step)


def test_batches_hold_the_prescribed_crops(dataset: str) -> None:
    """Against the samples made anew from their clip and centre, cropped, flipped and transposed by torch."""
    # Rows of the dataset in shard order: shard_bytes=1 closes a shard after each row group.
    clips = [(clip, centre) for clip, count in enumerate([5, 2, 9]) for centre in range(count)]
    groups = [
        clips[0:2],
        clips[2:4],
        clips[4:5],
        clips[5:7],
        *[clips[i : i + 2] for i in range(7, 15, 2)],
        clips[15:16],
    ]
    order = SampleOrder(np.array([len(group) for group in groups]), 5, 2, seed=3)
    with feed(dataset) as batches:
        for step in range(8):
            batch = next(batches)
            for slot in range(5):
                reference = order.sample(step, slot)
                expected = sample(*groups[reference.group][reference.row])
                drawn = augmentation(3, step * 5 + slot, HEIGHT, WIDTH, 4)
                lr = torch.from_numpy(expected.lr).permute(0, 3, 1, 2)[..., drawn.top :, drawn.left :][..., :4, :4]
                dims = [-2] * drawn.flip_vertical + [-1] * drawn.flip_horizontal
                lr = lr.flip(dims)
                lr = lr.transpose(-1, -2) if drawn.transpose else lr
                assert torch.equal(batch.lr[slot], lr)
                hr = lr[FRAMES // 2].repeat_interleave(4, -1).repeat_interleave(4, -2)
                assert torch.equal(batch.hr[slot], hr)


def test_with_reversal_those_samples_run_backwards_and_nothing_else_changes(dataset: str) -> None:
    reverse = dataclasses.replace(CONFIG, reverse=True)
    seen = set()
    with feed(dataset) as plain, feed(dataset, config=reverse) as batches:
        for step in range(8):
            before, batch = next(plain), next(batches)
            assert torch.equal(batch.hr, before.hr)
            for slot in range(5):
                turns = is_reversed(3, step * 5 + slot)
                assert torch.equal(batch.lr[slot], before.lr[slot].flip(0) if turns else before.lr[slot])
                seen.add(turns)
    assert seen == {True, False}


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_any_number_of_workers_shares_out_the_same_batches(dataset: str, world_size: int) -> None:
    with feed(dataset) as whole:
        expected = [next(whole) for _ in range(6)]
    shares = []
    for rank in range(world_size):
        with feed(dataset, rank, world_size) as share:
            shares.append([next(share) for _ in range(6)])
    for step in range(6):
        assert torch.equal(torch.cat([share[step].lr for share in shares]), expected[step].lr)
        assert torch.equal(torch.cat([share[step].hr for share in shares]), expected[step].hr)


def test_resuming_continues_the_very_same_stream(dataset: str) -> None:
    with feed(dataset) as whole:
        expected = [next(whole) for _ in range(9)]
    with feed(dataset, start_step=6) as resumed:
        for step in range(6, 9):
            assert torch.equal(next(resumed).lr, expected[step].lr)


def test_shapes_and_types(dataset: str) -> None:
    with feed(dataset, frames=3) as batches:
        batch = next(batches)
    assert batch.lr.shape == (5, 3, 3, 4, 4)
    assert batch.hr.shape == (5, 3, 16, 16)
    assert batch.lr.dtype == batch.hr.dtype == torch.uint8


@pytest.mark.parametrize(
    "change",
    [
        {"cache_mb": 0, "readers": 1, "prefetch": 1},
        {"cache_mb": 0, "readers": 7},
        {"prefetch": 9, "shuffle_groups": 2},
        {"cache_mb": 0, "disk_cache": "cache"},
        {"disk_cache": "cache", "disk_cache_mb": 1, "readers": 3},
    ],
)
def test_readers_and_caches_change_nothing_in_what_is_delivered(
    dataset: str, tmp_path: Path, change: dict[str, Any]
) -> None:
    if "disk_cache" in change:
        change = {**change, "disk_cache": str(tmp_path / "cache")}
    config = dataclasses.replace(CONFIG, **change)
    with feed(dataset) as undisturbed:
        expected = [next(undisturbed) for _ in range(30)]
    for _ in range(2):  # the second time from what the first left on the disk
        with Feed(
            [Dataset(dataset, load_manifest(dataset))], config, FRAMES, 3, rank=0, world_size=1, start_step=0
        ) as batches:
            for step in range(30):
                batch = next(batches)
                assert torch.equal(batch.lr, expected[step].lr)
                assert torch.equal(batch.hr, expected[step].hr)


def test_what_is_on_the_local_disk_is_not_read_again(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers of a node share the folder; a later run finds all of it."""
    config = dataclasses.replace(CONFIG, cache_mb=0, disk_cache=str(tmp_path))
    data = load_manifest(dataset)

    def epochs() -> list[Tensor]:
        delivered = []
        for rank in range(2):
            with Feed([Dataset(dataset, data)], config, FRAMES, 3, rank=rank, world_size=2, start_step=0) as batches:
                delivered += [next(batches).lr for _ in range(10)]
        return delivered

    first = epochs()
    storage = counted_storage(monkeypatch)
    assert all(map(torch.equal, epochs(), first))
    assert storage.reads == []
    next(tmp_path.glob("*.group")).write_bytes(b"damaged")
    assert all(map(torch.equal, epochs(), first))
    assert storage.reads


def test_an_outage_delays_the_batches_and_changes_none(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with feed(dataset) as undisturbed:
        expected = [next(undisturbed) for _ in range(12)]
    storage = counted_storage(monkeypatch)
    with feed(dataset) as batches:
        for step in range(12):
            if step in (0, 3):
                storage.failures = 3
            assert torch.equal(next(batches).hr, expected[step].hr)


def test_a_missing_shard_is_reported_by_the_feed(dataset: str) -> None:
    shards = load_manifest(dataset).shards
    broken = manifest((*shards[:-1], dataclasses.replace(shards[-1], path="gone.parquet")))
    with (
        Feed([Dataset(dataset, broken)], CONFIG, FRAMES, 3, rank=0, world_size=1, start_step=0) as batches,
        pytest.raises(UserError, match=r"gone\.parquet: the shard is missing"),
    ):
        list(itertools.islice(batches, 5))


def test_leaving_does_not_wait_for_a_storage_that_is_away(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = counted_storage(monkeypatch)
    with feed(dataset) as batches:
        next(batches)
        storage.is_down = True
        started = time.monotonic()
    assert time.monotonic() - started < 30  # of 60


def test_waiting_is_measured(dataset: str) -> None:
    with feed(dataset) as batches:
        assert batches.waited == 0
        next(batches)
        assert batches.waited > 0


def test_fewer_frames_are_the_middle_ones() -> None:
    lr = np.arange(7).reshape(7, 1, 1, 1).astype(np.uint8)
    assert centre_frames(lr, 3).ravel().tolist() == [2, 3, 4]
    assert centre_frames(lr, 7).ravel().tolist() == list(range(7))


def test_lr_and_hr_stay_aligned_under_every_augmentation() -> None:
    one = sample(1, 1)
    for number in range(8):
        flags = [bool(number & 1), bool(number & 2), bool(number & 4)]
        lr, hr = augment(one.lr, one.hr, Augmentation(3, 5, *flags), crop=6)
        assert np.array_equal(hr[::4, ::4], lr[FRAMES // 2])


def test_a_dataset_that_cannot_be_used_is_refused(dataset: str, tmp_path: Path) -> None:
    assert check_dataset(dataset, "data.path", FRAMES, 10).samples == 16
    with pytest.raises(UserError, match=r"12x10, smaller than data\.crop 11"):
        check_dataset(dataset, "data.path", FRAMES, 11)
    with pytest.raises(UserError, match=r"have 7 frames, model\.frames is 9"):
        check_dataset(dataset, "data.path", 9, 4)
    with pytest.raises(UserError, match="mana ingest"):
        check_dataset(str(tmp_path / "missing"), "data.path", 7, 4)
    save_manifest(str(tmp_path), manifest(()))
    with pytest.raises(UserError, match="holds no samples"):
        check_dataset(str(tmp_path), "data.path", 7, 4)
