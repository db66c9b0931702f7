"""The samples of a step whose loss is not finite."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.data.feed import Feed
from mana_dist.data.manifest import load_manifest
from mana_dist.data.mixture import Dataset
from mana_dist.train.elastic import suspects
from tests.data.shards import plain_array
from tests.train.datasets import make_dataset


@pytest.fixture
def config(tmp_path: Path) -> Config:
    make_dataset(str(tmp_path / "samples"), 22)
    data = DataConfig(path=str(tmp_path / "samples"), batch_size=5, crop=16)
    return Config(data=data, run=RunConfig(name="one", storage=str(tmp_path), seed=3))


def test_names_the_very_samples_that_the_workers_had(config: Config, tmp_path: Path) -> None:
    """With crops as large as the samples, a batch's mean tells its samples: flips and transposes keep it."""
    assert config.data.path is not None
    mixture = (Dataset(config.data.path, load_manifest(config.data.path)),)
    step = 8
    uri = suspects.record(config, mixture, step, float("nan"), 0.5, finite=[True, False])
    content = json.loads(Path(uri).read_text())
    assert uri == str(tmp_path / "one" / "nan_step_8.json")
    assert (content["step"], content["loss"], content["gradient_norm"]) == (8, "nan", 0.5)
    assert [sample["slot"] for sample in content["samples"]] == [0, 1, 2, 3, 4]
    assert [sample["suspected"] for sample in content["samples"]] == [False, False, True, True, True]
    delivered = []
    for rank in (0, 1):
        with Feed(mixture, config.data, 7, 3, rank=rank, world_size=2, start_step=step - 1) as feed:
            delivered += [float(hr.float().mean()) for hr in next(feed).hr]
    for sample, mean in zip(content["samples"], delivered, strict=True):
        table = pq.read_table(sample["shard"])
        hr = plain_array(table, "hr")[sample["row"]]
        assert hr.mean() == pytest.approx(mean, abs=1e-3)
        assert (sample["clip"], sample["centre"]) == ("noise", table["centre"][sample["row"]].as_py())


def test_a_shard_that_cannot_be_read_keeps_its_place(config: Config) -> None:
    assert config.data.path is not None
    manifest = load_manifest(config.data.path)
    for shard in manifest.shards:
        Path(config.data.path, shard.path).write_bytes(b"")
    found = suspects.suspects(config, (Dataset(config.data.path, manifest),), 1, finite=[False])
    assert len(found) == 5
    assert all(one.clip is None and one.centre is None and one.suspected for one in found)
