"""The disk cache keeps row groups within its bound, for all processes together, and never hands out damage."""

import contextlib
import dataclasses
import errno
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from mana_dist.data.cache import DiskCache
from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.mixture import Dataset
from mana_dist.data.samples import SampleGroup
from mana_dist.errors import UserError

ROWS, GROUPS, FRAMES, SIDE = 4, 8, 3, 6
SHARD = Shard("a-00000.parquet", ROWS * GROUPS, ROWS, SIDE, SIDE, 1234, "a")
GROUP_BYTES = ROWS * 3 * SIDE**2 * (FRAMES + 16)
FILE_BYTES = GROUP_BYTES + 1024  # counted for each at most


def manifest(*shards: Shard) -> Manifest:
    return dataclasses.replace(SampleSettings(frames_per_sample=FRAMES).empty_manifest(), shards=shards or (SHARD,))


A = Dataset("s3://bucket/a", manifest())


def group(number: int) -> SampleGroup:
    rng = np.random.default_rng(number)
    lr = rng.integers(0, 256, (ROWS, FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    return SampleGroup(lr, rng.integers(0, 256, (ROWS, 4 * SIDE, 4 * SIDE, 3), dtype=np.uint8))


def cache(folder: Path, limit: int = 10**9, uri: str = "s3://bucket/a") -> DiskCache:
    return DiskCache(str(folder), limit, [Dataset(uri, manifest())])


def fill(folder: Path, indices: range, limit: int = 10**9, uri: str = "s3://bucket/a") -> None:
    """Store row groups, one after the other."""
    for index in indices:
        filling = cache(folder, limit, uri)
        filling.store(Dataset(uri, manifest()), SHARD, index, group(index))
        filling.close()


def found(folder: Path, uri: str = "s3://bucket/a") -> list[int]:
    """The row groups that are there; each is checked."""
    there = []
    for index in range(GROUPS):
        kept = cache(folder, uri=uri).load(Dataset(uri, manifest()), SHARD, index)
        if kept is not None:
            assert np.array_equal(kept.lr, group(index).lr)
            assert np.array_equal(kept.hr, group(index).hr)
            there.append(index)
    return there


def first_group(
    folder: Path, manifest_: Manifest, shard: Shard = SHARD, uri: str = "s3://bucket/a"
) -> SampleGroup | None:
    dataset = Dataset(uri, manifest_)
    return DiskCache(str(folder), 10**9, [dataset]).load(dataset, shard, 0)


def files(folder: Path) -> list[Path]:
    """The row groups' files, the oldest first."""
    return sorted(folder.glob("*.group"), key=lambda path: path.stat().st_mtime)


def test_what_was_stored_comes_back_in_another_process_mapped(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    assert found(tmp_path) == [0, 1, 2]
    kept = cache(tmp_path).load(A, SHARD, 1)
    assert kept is not None
    assert not kept.hr.flags.owndata
    assert not kept.hr.flags.writeable
    assert not list(tmp_path.glob("*partial*"))


def test_any_array_reader_can_open_the_files(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    array = np.load(files(tmp_path)[0])
    assert np.array_equal(array["lr"], group(0).lr)


def test_other_data_under_the_same_name_is_not_found(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    made_again = dataclasses.replace(SHARD, bytes=1235)
    degraded_otherwise = dataclasses.replace(manifest(), degradation="BD")
    assert first_group(tmp_path, manifest(made_again), made_again) is None
    assert first_group(tmp_path, degraded_otherwise) is None
    assert first_group(tmp_path, manifest(), uri="s3://bucket/b") is None


def test_shards_that_come_to_the_dataset_leave_the_others_cached(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    grown = manifest(SHARD, dataclasses.replace(SHARD, path="b-00000.parquet"))
    assert first_group(tmp_path, grown) is not None


def test_every_damage_is_a_miss_and_the_file_goes(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    short = [whole[:length] for length in (0, 1, 50, 200, len(whole) // 2, len(whole) - 1)]
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (0, 9, 60, 500, len(whole) - 1)]
    for damaged in [*short, *flipped, bytes(len(whole)), whole + b"x"]:
        file.write_bytes(damaged)
        assert cache(tmp_path).load(A, SHARD, 0) is None
        assert not file.exists()
    fill(tmp_path, range(1))
    assert found(tmp_path) == [0]


def test_room_is_made_by_the_least_recently_used_of_other_datasets(tmp_path: Path) -> None:
    fill(tmp_path, range(4), uri="s3://bucket/old")
    for age, file in enumerate(files(tmp_path)):
        os.utime(file, (1000 + age, 1000 + age))
    cache(tmp_path, uri="s3://bucket/old").load(Dataset("s3://bucket/old", manifest()), SHARD, 0)  # a use
    fill(tmp_path, range(1), limit=4 * FILE_BYTES)
    assert found(tmp_path) == [0]
    assert found(tmp_path, "s3://bucket/old") == [0, 2, 3]


def test_a_dataset_that_does_not_fit_keeps_what_it_has(tmp_path: Path) -> None:
    """Row groups come in a new order each epoch: what stays is found each time, and is the cache's full share."""
    fill(tmp_path, range(GROUPS), limit=4 * FILE_BYTES)
    assert found(tmp_path) == [0, 1, 2, 3]


def test_a_lowered_limit_is_kept_to(tmp_path: Path) -> None:
    fill(tmp_path, range(4))
    fill(tmp_path, range(4, 5), limit=2 * FILE_BYTES)
    assert len(found(tmp_path)) == 2


def store_all(folder: Path, uri: str, limit: int) -> None:
    for _ in range(3):
        fill(folder, range(GROUPS), limit, uri)


def size_of(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


def test_processes_that_share_the_folder_stay_within_the_bound_together(tmp_path: Path) -> None:
    limit = 6 * FILE_BYTES
    context = multiprocessing.get_context("spawn")
    arguments = [(tmp_path, uri, limit) for uri in ("s3://b/1", "s3://b/1", "s3://b/2")]
    processes = [context.Process(target=store_all, args=one) for one in arguments]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        with FileLock(tmp_path / ".lock"):
            most = max(most, sum(size_of(file) for file in tmp_path.iterdir() if "group" in file.name))
        time.sleep(0.001)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert 0 < most <= limit
    assert found(tmp_path, "s3://b/1") + found(tmp_path, "s3://b/2")
    assert not list(tmp_path.glob("*partial*"))


def test_what_a_killed_process_left_goes_and_foreign_files_stay(tmp_path: Path) -> None:
    left, running, foreign = tmp_path / "a.group-partial", tmp_path / "b.group-partial", tmp_path / "notes.txt"
    for file in (left, running, foreign):
        file.write_bytes(bytes(3 * FILE_BYTES))
    os.utime(left, (1000, 1000))
    fill(tmp_path, range(4), limit=4 * FILE_BYTES)
    assert not left.exists()
    assert running.exists()
    assert foreign.exists()
    assert found(tmp_path) == [0]


def test_a_full_disk_stops_the_storing_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mana_dist.data.cache.os.fsync", no_space)
    full = cache(tmp_path)
    full.store(A, SHARD, 0, group(0))
    full.close()
    assert "No space left" in capsys.readouterr().out
    assert not [file for file in tmp_path.iterdir() if "group" in file.name]
    full.store(A, SHARD, 1, group(1))  # not tried


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.disk_cache: cannot write to .*name another"):
        cache(tmp_path / "file" / "cache")
