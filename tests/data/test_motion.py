"""What moves comes more often, by the flow that the shards hold."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mana_dist.config import DataConfig
from mana_dist.data.config import SampleSettings
from mana_dist.data.feed import Feed
from mana_dist.data.manifest import Manifest
from mana_dist.data.mixture import Dataset
from mana_dist.data.motion import read_repeats, repeats
from mana_dist.data.samples import Sample, ShardWriter
from mana_dist.errors import UserError

FLOWS = [0.0, 0.2, 2.5, 0.5, 1.0, float("nan"), 0.7]
OFTEN = [1, 2, 4, 3, 4, 1, 3]  # 1 + 3 * min(flow, 1), rounded (half to even), by hand


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[str, Manifest]:
    """Samples of one colour, their number's, of 3 to a row group, in shards of two row groups."""
    folder, raw = str(tmp_path), 3 * 64 * (3 + 16)
    with ShardWriter(folder, stem="a", unit="a", group_bytes=3 * raw, shard_bytes=6 * raw) as writer:
        for number, flow in enumerate(FLOWS):
            lr, hr = np.full((3, 8, 8, 3), number, np.uint8), np.full((32, 32, 3), number, np.uint8)
            writer.add(Sample(lr, hr, number, flow), clip="a", source="a")
        shards = writer.close()
    empty = SampleSettings(frames_per_sample=3).empty_manifest()
    return folder, dataclasses.replace(empty, samples=len(FLOWS), clips=1, shards=shards)


def test_counts_grow_with_the_flow_up_to_a_pixel_a_frame() -> None:
    assert repeats(np.array(FLOWS, np.float32), 4).tolist() == OFTEN
    assert repeats(np.array(FLOWS, np.float32), 1).tolist() == [1] * 7


def test_counts_are_read_in_the_datasets_order(dataset: tuple[str, Manifest]) -> None:
    assert len(dataset[1].shards) == 2
    found = read_repeats([Dataset(*dataset)], 4, readers=2)
    assert found is not None
    assert found.tolist() == OFTEN
    assert read_repeats([Dataset("nowhere", dataset[1])], 1, readers=1) is None  # nothing to read


def test_a_shard_that_is_missing_is_named(dataset: tuple[str, Manifest]) -> None:
    path = Path(dataset[0], dataset[1].shards[1].path)
    path.unlink()
    with pytest.raises(UserError, match=rf"^{path}: the shard is missing though the manifest lists it"):
        read_repeats([Dataset(*dataset)], 4, readers=2)


def test_a_shard_that_is_damaged_is_named(dataset: tuple[str, Manifest]) -> None:
    path = Path(dataset[0], dataset[1].shards[0].path)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=rf"^{path}: damaged"):
        read_repeats([Dataset(*dataset)], 4, readers=2)


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_feed_delivers_samples_as_often_as_they_should_come(dataset: tuple[str, Manifest], world_size: int) -> None:
    config = DataConfig(batch_size=2, crop=8, shuffle_groups=2, motion=4, cache_mb=0)
    epochs, steps = 2, sum(OFTEN)  # of two samples each
    delivered = Counter[int]()
    for rank in range(world_size):
        with Feed([Dataset(*dataset)], config, 3, 0, rank=rank, world_size=world_size, start_step=0) as feed:
            for _ in range(steps):
                delivered.update(next(feed).hr[:, 0, 0, 0].tolist())
    assert delivered == Counter({number: epochs * often for number, often in enumerate(OFTEN)})
