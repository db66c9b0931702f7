"""Shards are read with few requests, through outages, and damaged ones are distinguished from storage that is away."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mana_dist.data.manifest import Manifest
from mana_dist.data.samples import SampleGroup
from mana_dist.data.shard_reader import ShardReader
from mana_dist.errors import UserError
from tests.data.shards import counted_storage, noise_dataset, plain_array


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[str, Manifest]:
    folder = str(tmp_path / "data")
    return folder, noise_dataset(folder, 10, group_rows=4)


def shard_file(dataset: tuple[str, Manifest]) -> Path:
    return Path(dataset[0], dataset[1].shards[0].path)


def plainly(dataset: tuple[str, Manifest], index: int) -> SampleGroup:
    table = pq.ParquetFile(shard_file(dataset)).read_row_group(index)
    return SampleGroup(plain_array(table, "lr"), plain_array(table, "hr"))


def test_row_groups_are_those_of_plain_pyarrow(dataset: tuple[str, Manifest]) -> None:
    (shard,) = dataset[1].shards
    reader = ShardReader(*dataset)
    table = pq.read_table(shard_file(dataset))
    for index, start in enumerate(range(0, 10, 4)):
        group = reader.read(shard, index)
        assert np.array_equal(group.lr, plain_array(table, "lr")[start : start + 4])
        assert np.array_equal(group.hr, plain_array(table, "hr")[start : start + 4])


def test_shards_that_another_writer_laid_out_are_read_too(dataset: tuple[str, Manifest]) -> None:
    (shard,) = dataset[1].shards
    expected = ShardReader(*dataset).read(shard, 1)
    file = shard_file(dataset)
    pq.write_table(pq.read_table(file), file, row_group_size=4, compression="snappy")
    other = dataclasses.replace(shard, bytes=file.stat().st_size)
    group = ShardReader(*dataset).read(other, 1)
    assert np.array_equal(group.lr, expected.lr)
    assert np.array_equal(group.hr, expected.hr)


def test_a_row_group_is_one_request_of_no_more_than_its_bytes(
    dataset: tuple[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = dataset[1].shards
    storage = counted_storage(monkeypatch)
    reader = ShardReader(*dataset)
    for index in (0, 1, 2, 1):
        reader.read(shard, index)
    assert storage.opened == 1
    footer, *groups = storage.reads
    assert footer[1] + footer[2] == shard.bytes
    metadata = pq.read_metadata(shard_file(dataset))
    for index, (_, start, length) in zip((0, 1, 2, 1), groups, strict=True):
        columns = [metadata.row_group(index).column(column) for column in (0, 1)]
        assert start == columns[0].data_page_offset
        assert length == sum(column.total_compressed_size for column in columns)


def test_a_footer_longer_than_the_first_read_is_read_whole(
    dataset: tuple[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = dataset[1].shards
    storage = counted_storage(monkeypatch)
    monkeypatch.setattr("mana_dist.data.shard_reader._FOOTER_BYTES", 100)
    assert np.array_equal(ShardReader(*dataset).read(shard, 2).hr, plainly(dataset, 2).hr)
    assert len(storage.reads) == 3


def test_no_more_files_stay_open_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = noise_dataset(str(tmp_path), 3, group_rows=1, shard_rows=1)
    monkeypatch.setattr("mana_dist.data.shard_reader._OPEN_FILES", 2)
    storage = counted_storage(monkeypatch)
    reader = ShardReader(str(tmp_path), manifest)
    for number in (0, 1, 0, 1, 2, 1, 0):
        reader.read(manifest.shards[number], 0)
    assert storage.opened == 4


def test_an_outage_is_waited_out(
    dataset: tuple[str, Manifest], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted_storage(monkeypatch).failures = 2
    group = ShardReader(*dataset).read(dataset[1].shards[0], 2)
    assert np.array_equal(group.lr, plainly(dataset, 2).lr)
    assert capsys.readouterr().out.count("trying again for 60 s") == 1


def test_an_outage_that_does_not_end_names_shard_and_storage(
    dataset: tuple[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shard,) = dataset[1].shards
    counted_storage(monkeypatch).is_down = True
    with pytest.raises(UserError, match=f"{dataset[0]}/{shard.path}: could not be read .*NETWORK_CONNECTION.*resume"):
        ShardReader(*dataset, patience=0.6).read(shard, 0)


def test_closing_ends_the_waiting(dataset: tuple[str, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    counted_storage(monkeypatch).is_down = True
    reader = ShardReader(*dataset)
    threading.Timer(0.2, reader.close).start()
    started = time.monotonic()
    with pytest.raises(UserError, match="could not be read"):
        reader.read(dataset[1].shards[0], 0)
    assert time.monotonic() - started < 30  # of 60


def remove(file: Path) -> None:
    file.unlink()


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def overwrite(start: int) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[start : start + 8 or None] = b"nonsense"
        file.write_bytes(bytes(data))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "missing.*run its ingest again"),
        (cut_short, r"damaged \(\d+ bytes long, the manifest says \d+\).*--verify"),
        (overwrite(2000), r"damaged \(.*CRC checksum.*--verify"),
        (overwrite(-8), "damaged.*--verify"),
        (overwrite(-100), "damaged.*--verify"),
    ],
)
def test_a_damaged_shard_is_reported_at_once(
    dataset: tuple[str, Manifest], damage: Callable[[Path], None], message: str
) -> None:
    damage(shard_file(dataset))
    started = time.monotonic()
    with pytest.raises(UserError, match=message) as raised:
        ShardReader(*dataset).read(dataset[1].shards[0], 0)
    assert str(shard_file(dataset)) in str(raised.value)
    assert time.monotonic() - started < 30  # of the 60 that an outage is waited out


def test_no_flipped_bit_passes_for_pixels(dataset: tuple[str, Manifest]) -> None:
    """Any bit of a page's header, of which some mean nothing, and bits all over the compressed bytes."""
    (shard,) = dataset[1].shards
    expected, file = plainly(dataset, 1), shard_file(dataset)
    whole = file.read_bytes()
    places, messages = [], []
    for column in (0, 1):
        chunk = pq.read_metadata(file).row_group(1).column(column)
        bits = range(8 * chunk.data_page_offset, 8 * (chunk.data_page_offset + chunk.total_compressed_size))
        places += [*bits[: 8 * 40], *bits[8 * 40 :: 997]]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            group = ShardReader(*dataset).read(shard, 1)
        except UserError as error:
            messages.append(str(error))
        else:
            assert np.array_equal(group.lr, expected.lr)
            assert np.array_equal(group.hr, expected.hr)
    assert len(messages) > 0.8 * len(places)
    assert all(line.startswith(f"{file}: damaged (") for line in messages)
