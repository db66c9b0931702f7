"""The feed delivers exactly what the order prescribes, whatever the number of workers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import fs

from mana_dist.config import DataConfig
from mana_dist.data.feed import Feed, augment, centre_frames, check_dataset
from mana_dist.data.manifest import Manifest, Shard, load_manifest, save_manifest
from mana_dist.data.order import Augmentation, SampleOrder, augmentation
from mana_dist.data.samples import Sample, SampleGroup, ShardWriter, read_row_group
from mana_dist.errors import UserError

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
            folder, stem=stem, clip=stem, source=stem, group_bytes=2 * (one.lr.nbytes + one.hr.nbytes), shard_bytes=1
        )
        for centre in range(count):
            writer.add(sample(clip, centre))
        shards += writer.close()
    save_manifest(folder, manifest(tuple(shards)))
    return folder


def manifest(shards: tuple[Shard, ...]) -> Manifest:
    return Manifest(
        degradation="BI",
        degradation_version=1,
        scale=4,
        frames=FRAMES,
        stride=1,
        start=0,
        stop=None,
        samples=sum(shard.rows for shard in shards),
        shards=shards,
        sources=(),
        rejected=(),
    )


CONFIG = DataConfig(batch_size=5, crop=4, shuffle_groups=2, prefetch=2)


def feed(dataset: str, rank: int = 0, world_size: int = 1, start_step: int = 0, frames: int = FRAMES) -> Feed:
    return Feed(
        dataset, load_manifest(dataset), CONFIG, frames, 3, rank=rank, world_size=world_size, start_step=start_step
    )


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
                how = augmentation(3, step * 5 + slot, HEIGHT, WIDTH, 4)
                lr = torch.from_numpy(expected.lr).permute(0, 3, 1, 2)[..., how.top :, how.left :][..., :4, :4]
                dims = [-2] * how.flip_vertical + [-1] * how.flip_horizontal
                lr = lr.flip(dims)
                lr = lr.transpose(-1, -2) if how.transpose else lr
                assert torch.equal(batch.lr[slot], lr)
                hr = lr[FRAMES // 2].repeat_interleave(4, -1).repeat_interleave(4, -2)
                assert torch.equal(batch.hr[slot], hr)


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


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_the_cache_changes_nothing_but_the_reading(
    dataset: str, cache_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 9 row groups of 16 samples fit into a MiB; without it, two slots keep the groups of two windows and more."""
    reads: list[str] = []

    def counting(filesystem: fs.FileSystem, path: str, index: int) -> SampleGroup:
        reads.append(f"{path}:{index}")
        return read_row_group(filesystem, path, index)

    monkeypatch.setattr("mana_dist.data.feed.read_row_group", counting)
    config = dataclasses.replace(CONFIG, cache_mb=cache_mb, prefetch=1)
    with Feed(dataset, load_manifest(dataset), config, FRAMES, 3, rank=0, world_size=3, start_step=0) as batches:
        delivered = [next(batches).lr for _ in range(30)]
    monkeypatch.undo()
    with feed(dataset) as whole:
        assert all(torch.equal(lr, next(whole).lr[:1]) for lr in delivered)
    assert len(set(reads)) <= 9
    assert (len(reads) == len(set(reads))) == bool(cache_mb)


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
    with pytest.raises(UserError, match="pipelines.ingest"):
        check_dataset(str(tmp_path / "missing"), "data.path", 7, 4)
    save_manifest(str(tmp_path), manifest(()))
    with pytest.raises(UserError, match="holds no samples"):
        check_dataset(str(tmp_path), "data.path", 7, 4)
