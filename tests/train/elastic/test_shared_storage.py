"""A run's folder must be the same one on every node."""

import shutil
from pathlib import Path

import pytest

from mana_dist.errors import UserError
from mana_dist.storage import lease
from mana_dist.storage.lease import Fence
from mana_dist.train.elastic import shared_storage


def test_the_drivers_lease_is_seen_where_it_is_and_goes_afterwards(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").touch()
    with lease.hold(str(tmp_path / "one"), "run one", "wait") as held:
        assert shared_storage.sees(held.fence)
        assert not shared_storage.sees(Fence(str(tmp_path / "another"), "run one", held.owner.attempt), patience=0)
        shutil.copytree(tmp_path / "one", tmp_path / "copy")
        # A copy that an earlier attempt has left on this node.
        assert not shared_storage.sees(Fence(str(tmp_path / "copy"), "run one", "this attempt"), patience=0)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["run.json"]


def test_an_object_store_is_the_same_everywhere() -> None:
    assert shared_storage.sees(Fence("s3://bucket/runs/one", "run one", "x"), patience=0)


def test_one_node_that_does_not_see_it_is_reported() -> None:
    shared_storage.check_all([True, True], "runs")
    with pytest.raises(UserError, match=r"run.storage runs is not the same place on all nodes \(1 of 2 workers"):
        shared_storage.check_all([True, False], "runs")
