"""Whether a run's folder is the same one on every node."""

from pathlib import Path

import pytest

from mana_dist.config import Config, RunConfig
from mana_dist.errors import UserError
from mana_dist.train import shared_storage


def config(storage: str) -> Config:
    return Config(run=RunConfig(name="one", storage=storage))


def test_the_token_is_seen_where_it_is_and_goes_afterwards(tmp_path: Path) -> None:
    with shared_storage.token(config(str(tmp_path))) as token:
        assert token is not None
        assert shared_storage.sees(token)
        assert not shared_storage.sees(token.replace("one", "another"), patience=0)
    assert list((tmp_path / "one").iterdir()) == []


def test_what_a_killed_driver_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".driver-0123").touch()
    (tmp_path / "one" / "run.json").touch()
    with shared_storage.token(config(str(tmp_path))) as token:
        assert token is not None
        assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [Path(token).name, "run.json"]


def test_an_object_store_is_the_same_everywhere() -> None:
    with shared_storage.token(config("s3://bucket/runs")) as token:
        assert token is None


def test_one_node_that_does_not_see_it_is_told() -> None:
    shared_storage.check_all([True, True], "runs")
    with pytest.raises(UserError, match=r"run.storage runs is not the same place on all nodes \(1 of 2 workers"):
        shared_storage.check_all([True, False], "runs")
