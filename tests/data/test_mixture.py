"""Several datasets in one run: each sample as often as its dataset's weight says."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mana_dist.config import Config, DataConfig, MoreData, RunConfig, parse, to_mapping, to_yaml
from mana_dist.data.config import SampleSettings
from mana_dist.data.feed import Feed
from mana_dist.data.manifest import save_manifest
from mana_dist.data.mixture import Dataset, fingerprint, samples
from mana_dist.data.samples import Sample, ShardWriter
from mana_dist.errors import UserError
from mana_dist.published_keys import shared, tracked
from mana_dist.train.planning.checks import check_inputs

FRAMES, SIDE = 3, 16


def dataset(folder: Path, colours: range, weight: int = 1, scale: int = 4) -> Dataset:
    """Samples of one colour each, that move by half a LR pixel a frame, two to a row group."""
    raw = 3 * SIDE**2 * (FRAMES + 16)
    with ShardWriter(str(folder), stem="a", unit="a", group_bytes=2 * raw, shard_bytes=4 * raw) as writer:
        for colour in colours:
            lr = np.full((FRAMES, SIDE, SIDE, 3), colour, np.uint8)
            hr = np.full((4 * SIDE, 4 * SIDE, 3), colour, np.uint8)
            writer.add(Sample(lr, hr, colour, 0.5), clip="a", source="a")
        shards = writer.close()
    empty = SampleSettings(frames_per_sample=FRAMES).empty_manifest()
    manifest = dataclasses.replace(empty, samples=len(colours), clips=1, shards=shards, scale=scale)
    save_manifest(str(folder), manifest)
    return Dataset(str(folder), manifest, weight)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("motion", "often"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("cached", [False, True])
def test_an_epoch_holds_each_sample_as_often_as_its_weight_says(
    tmp_path: Path, world_size: int, motion: int, often: int, cached: bool
) -> None:
    mixture = (dataset(tmp_path / "a", range(5)), dataset(tmp_path / "b", range(100, 103), weight=3))
    cache = str(tmp_path / "cache") if cached else None
    config = DataConfig(batch_size=2, crop=8, shuffle_groups=2, motion=motion, cache_mb=0, disk_cache=cache)
    delivered = Counter[int]()
    for rank in range(world_size):
        with Feed(mixture, config, FRAMES, 0, rank=rank, world_size=world_size, start_step=0) as feed:
            for _ in range(14 * often):  # two epochs of 5 + 3 x 3 samples
                delivered.update(next(feed).hr[:, 0, 0, 0].tolist())
    assert delivered == Counter({**dict.fromkeys(range(5), 2 * often), **dict.fromkeys(range(100, 103), 6 * often)})
    assert samples(mixture) == 14


def test_a_runs_fingerprint_is_of_all_datasets_and_weights(tmp_path: Path) -> None:
    one, other = dataset(tmp_path / "a", range(5)), dataset(tmp_path / "b", range(3))
    found = [
        fingerprint(mixture)
        for mixture in ((one,), (other,), (one, other), (other, one), (one, dataclasses.replace(other, weight=2)))
    ]
    found.append(fingerprint((dataclasses.replace(one, weight=2),)))
    assert len(set(found)) == len(found)
    assert fingerprint((dataclasses.replace(one, uri="moved"),)) == found[0]


def config(folder: Path, *more: MoreData) -> Config:
    data = DataConfig(path=str(folder / "a"), more=more, crop=8)
    model = dataclasses.replace(Config().model, frames=FRAMES)
    return Config(model=model, data=data, run=RunConfig(name="run", storage=str(folder)))


def test_a_run_checks_all_of_its_datasets(tmp_path: Path) -> None:
    first, second = dataset(tmp_path / "a", range(5)), dataset(tmp_path / "b", range(3), weight=2)
    dataset(tmp_path / "x2", range(3), scale=2)
    assert check_inputs(config(tmp_path, MoreData(path=second.uri, weight=2))) == (first, second)
    with pytest.raises(UserError, match=r"data\.more: .*/a is there twice; give it a weight"):
        check_inputs(config(tmp_path, MoreData(path=f"{first.uri}/")))
    with pytest.raises(UserError, match=r"data\.more .*x2: samples in .*x2 are of scale 2, model\.scale is 4"):
        check_inputs(config(tmp_path, MoreData(path=str(tmp_path / "x2"))))
    with pytest.raises(UserError, match=r"nowhere: no finished sample dataset there"):
        check_inputs(config(tmp_path, MoreData(path=str(tmp_path / "nowhere"))))
    os.unlink(tmp_path / "b" / second.manifest.shards[0].path)
    with pytest.raises(UserError, match=r"^data\.more .*/b lacks "):
        check_inputs(config(tmp_path, MoreData(path=second.uri)))


def test_datasets_come_from_the_command_line_and_their_passwords_stay() -> None:
    found = parse(["--data.path", "a", "--data.more", "[{path: 'http://me:secret@host/b', weight: 3}]"])
    assert found.data.more == (MoreData(path="http://me:secret@host/b", weight=3),)
    shown = tracked(to_mapping(found))["data"]["more"]
    assert "host/b" in str(shown)
    assert "secret" not in str(shown)
    assert "more" not in shared(to_mapping(found))["data"]
    with pytest.raises(UserError, match=r"data\.more\.weight must be at least 1"):
        parse(["--data.more", "[{path: b, weight: 0}]"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("b", r"data\.more: write a list of datasets, \[\{path: URI, weight: 3\}\]"),
        ("{path: b}", r"data\.more: write a list of datasets"),
        ("[b]", r"data\.more: write a list of datasets"),
        ("[{weight: 2}]", r"data\.more: write a list of datasets"),
        ("[{path: a}, {pth: b}]", r"unknown key data\.more\[1\]\.pth; did you mean path\?"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^command line: {message}"):
        parse(["--data.more", value])
    file = tmp_path / "mine.yaml"
    file.write_text(f"data: {{more: {value}}}\n")
    with pytest.raises(UserError, match=f"^{file}: {message}"):
        parse(["--config", str(file)])


def test_a_file_and_a_configuration_written_out_hold_the_same_datasets(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {path: a, more: [{path: /b, weight: 3}, {path: /c}]}\n")
    found = parse(["--config", str(file), "--config", "tiny"])
    assert found.data.more == (MoreData(path="/b", weight=3), MoreData(path="/c"))
    (tmp_path / "again.yaml").write_text(to_yaml(found))
    assert parse(["--config", str(tmp_path / "again.yaml")]) == found
