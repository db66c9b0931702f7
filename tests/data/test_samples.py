"""Sample shards and their manifest: what is written reads back by plain pyarrow; what is wrong says so."""

import dataclasses
import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mana_dist import ray_runtime
from mana_dist.data.degradation import BD
from mana_dist.data.manifest import Manifest, Rejected, Shard, find_manifest, load_manifest, save_manifest
from mana_dist.data.samples import Sample, ShardWriter, pixels
from mana_dist.errors import UserError
from tests.data.shards import plain_array, shaped
from tests.data.written_dataset import write_dataset
from tests.video.videos import noise_frames

RAW_BYTES = 7 * 8 * 12 * 3 + 32 * 48 * 3  # of one sample below


def some_samples(count: int) -> list[Sample]:
    lr = noise_frames(count * 7, 8, 12).reshape(count, 7, 8, 12, 3)
    hr = noise_frames(count, 32, 48, seed=1)
    return [Sample(lr[i], hr[i], centre=3 + 2 * i, flow=0.25 * i, top=8 * i, left=12 * i) for i in range(count)]


def write(folder: Path, samples: list[Sample]) -> tuple[Shard, ...]:
    """Row groups of 2 samples, shards of 6."""
    with ShardWriter(
        str(folder), stem="clip", unit="u1", group_bytes=2 * RAW_BYTES + 1, shard_bytes=6 * RAW_BYTES
    ) as writer:
        for sample in samples:
            writer.add(sample, clip="bunny", source="s3://b/bunny.mp4")
        return writer.close()


def test_plain_pyarrow_reads_what_was_written(tmp_path: Path) -> None:
    samples = some_samples(3)
    (shard,) = write(tmp_path, samples)
    table = pq.read_table(tmp_path / shard.path)
    assert table.column_names == ["lr", "hr", "clip", "centre", "source", "flow", "top", "left"]
    assert table.schema.field("lr").type == pa.binary(7 * 8 * 12 * 3)
    assert table.schema.field("hr").metadata == {b"shape": b"[32, 48, 3]", b"dtype": b"uint8"}
    np.testing.assert_array_equal(plain_array(table, "lr"), [sample.lr for sample in samples])
    np.testing.assert_array_equal(plain_array(table, "hr"), [sample.hr for sample in samples])
    assert table["clip"].to_pylist() == ["bunny"] * 3
    assert table["source"].to_pylist() == ["s3://b/bunny.mp4"] * 3
    assert table["centre"].to_pylist() == [3, 5, 7]
    assert table["flow"].to_pylist() == [0.0, 0.25, 0.5]
    assert table["top"].to_pylist() == [0, 8, 16]
    assert table["left"].to_pylist() == [0, 12, 24]


def test_a_shard_takes_the_samples_of_several_clips(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), stem="pack", unit="u") as writer:
        for number, sample in enumerate(some_samples(4)):
            writer.add(sample, clip=f"clip{number // 2}", source=f"/clips/{number // 2}.mp4")
        (shard,) = writer.close()
    assert (shard.path, shard.rows, shard.unit) == ("pack-00000.parquet", 4, "u")
    table = pq.read_table(tmp_path / shard.path)
    assert table["clip"].to_pylist() == ["clip0", "clip0", "clip1", "clip1"]
    assert table["source"].to_pylist() == ["/clips/0.mp4", "/clips/0.mp4", "/clips/1.mp4", "/clips/1.mp4"]


def test_a_sample_of_another_size_begins_a_shard(tmp_path: Path) -> None:
    (one,) = some_samples(1)
    small = Sample(one.lr[..., ::2, :], one.hr[..., ::2, :], 9, 0.0)
    shards = write(tmp_path, [*some_samples(3), small, small, one])
    assert [(shard.rows, shard.group_rows, shard.height, shard.width) for shard in shards] == [
        (3, 2, 8, 12),
        (2, 4, 8, 6),
        (1, 2, 8, 12),
    ]
    assert [shard.path for shard in shards] == [f"clip-{i:05d}.parquet" for i in range(3)]
    for shard in shards:
        table = pq.read_table(tmp_path / shard.path)
        assert plain_array(table, "lr").shape == (shard.rows, 7, 8, shard.width, 3)


def test_shards_fill_up_and_say_what_they_hold(tmp_path: Path) -> None:
    shards = write(tmp_path, some_samples(15))
    assert [shard.path for shard in shards] == [f"clip-{i:05d}.parquet" for i in range(3)]
    assert [shard.rows for shard in shards] == [6, 6, 3]
    assert [shard.groups for shard in shards] == [3, 3, 2]
    for shard in shards:
        file = pq.ParquetFile(tmp_path / shard.path)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert sizes == [2] * (shard.rows // 2) + [1] * (shard.rows % 2)
        assert (shard.group_rows, shard.height, shard.width) == (2, 8, 12)
        assert shard.bytes == (tmp_path / shard.path).stat().st_size


def test_a_sample_larger_than_a_group_is_a_group(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), stem="s", unit="u", group_bytes=10) as writer:
        for sample in some_samples(3):
            writer.add(sample, clip="c", source="s")
        (shard,) = writer.close()
    assert (shard.group_rows, shard.groups) == (1, 3)


def test_pixels_of_several_row_groups_and_of_parts_of_one(tmp_path: Path) -> None:
    samples = some_samples(6)
    (shard,) = write(tmp_path, samples)
    file = pq.ParquetFile(tmp_path / shard.path)
    table = pa.concat_tables([file.read_row_group(index) for index in range(3)])
    assert table["lr"].num_chunks == 3
    for name in ("lr", "hr"):
        expected = np.stack([getattr(sample, name) for sample in samples])
        np.testing.assert_array_equal(pixels(table, name), expected)
        np.testing.assert_array_equal(pixels(table.slice(1, 4), name), expected[1:5])
        np.testing.assert_array_equal(pixels(table.combine_chunks().slice(1, 4), name), expected[1:5])


def test_a_column_that_is_none_of_pictures_is_refused(tmp_path: Path) -> None:
    (shard,) = write(tmp_path, some_samples(1))
    with pytest.raises(ValueError, match="column clip does not say that it holds pictures"):
        pixels(pq.read_table(tmp_path / shard.path), "clip")


def test_duckdb_reads_the_pictures(tmp_path: Path) -> None:
    samples = some_samples(5)
    (shard,) = write(tmp_path, samples)
    path = tmp_path / shard.path
    rows = duckdb.execute(f"SELECT lr, hr, clip, centre, flow FROM '{path}' ORDER BY centre").fetchall()
    for column, name in enumerate(("lr", "hr")):
        found = shaped([row[column] for row in rows], pq.read_schema(path).field(name))
        np.testing.assert_array_equal(found, [getattr(sample, name) for sample in samples])
    assert [row[2:] for row in rows] == [("bunny", sample.centre, sample.flow) for sample in samples]


@pytest.mark.slow
def test_ray_data_reads_the_pictures(tmp_path: Path) -> None:
    samples = some_samples(15)
    shards = write(tmp_path, samples)
    ray_runtime.start_ray(1)
    import ray.data

    try:
        dataset = ray.data.read_parquet([str(tmp_path / shard.path) for shard in shards])
        schema, rows = dataset.schema().base_schema, dataset.sort("centre").take_all()
    finally:
        ray.shutdown()
    for name in ("lr", "hr"):
        found = shaped([row[name] for row in rows], schema.field(name))
        np.testing.assert_array_equal(found, [getattr(sample, name) for sample in samples])


def test_neighbouring_samples_share_the_bytes_of_their_common_frames(tmp_path: Path) -> None:
    frames = noise_frames(8, 180, 320)
    hr = np.zeros((720, 1280, 3), np.uint8)
    samples = [Sample(frames[i : i + 7], hr, 3 + i, 0.0) for i in range(2)]
    with ShardWriter(str(tmp_path), stem="s", unit="u") as writer:
        for sample in samples:
            writer.add(sample, clip="c", source="s")
        (shard,) = writer.close()
    assert shard.group_rows == 2
    assert shard.bytes == pytest.approx(frames.nbytes, rel=0.1)  # eight frames, not fourteen


def test_same_samples_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, some_samples(5))
    assert (tmp_path / "a/clip-00000.parquet").read_bytes() == (tmp_path / "b/clip-00000.parquet").read_bytes()


def test_unfinished_shards_never_have_their_name(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with ShardWriter(str(tmp_path), stem="s", unit="u", group_bytes=1) as writer:
            writer.add(some_samples(1)[0], clip="c", source="s")
            assert not list(tmp_path.glob("*.parquet"))
            raise RuntimeError("decoder died")

    with pytest.raises(RuntimeError, match="decoder died"):
        fail_halfway()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_dataset_made_in_python_is_whole(tmp_path: Path) -> None:
    samples = some_samples(3)
    folder = str(tmp_path / "made")
    manifest = write_dataset(folder, iter(samples), clip="renders/take 1", group_bytes=2 * RAW_BYTES, degradation=BD)
    assert load_manifest(folder) == manifest
    assert (manifest.degradation, manifest.frames, manifest.scale, manifest.samples) == ("BD", 7, 4, 3)
    assert [(shard.rows, shard.group_rows, shard.height, shard.width) for shard in manifest.shards] == [(3, 2, 8, 12)]
    table = pq.read_table(tmp_path / "made" / manifest.shards[0].path)
    np.testing.assert_array_equal(plain_array(table, "hr"), [one.hr for one in samples])
    assert table["clip"].to_pylist() == ["renders/take 1"] * 3
    with pytest.raises(UserError, match="holds a sample dataset already"):
        write_dataset(folder, samples, clip="again")


def test_samples_of_other_shapes_are_refused_and_leave_no_manifest(tmp_path: Path) -> None:
    (one,) = some_samples(1)
    wrong = {
        "frames": Sample(one.lr[:5], one.hr, 0, 0.0),
        "scale": Sample(one.lr, one.hr[::2, ::2], 0, 0.0),
        "size": Sample(one.lr[:, :4], one.hr[:16], 0, 0.0),
    }
    for name, sample in wrong.items():
        with pytest.raises(UserError, match="sample 1: .* do not fit"):
            write_dataset(str(tmp_path / name), [one, sample], clip=name)
        assert find_manifest(str(tmp_path / name)) is None


def some_manifest() -> Manifest:
    return Manifest(
        degradation="BI",
        degradation_version=1,
        scale=4,
        frames=7,
        stride=2,
        samples=3,
        clips=1,
        sources="sources-0123.parquet",
        shards=(Shard("a.parquet", 3, 2, 8, 12, 4567, "ä"),),
        rejected=(Rejected("notes.txt", "not a video"),),
    )


def test_manifest_round_trip(tmp_path: Path) -> None:
    save_manifest(str(tmp_path), some_manifest())
    assert load_manifest(str(tmp_path)) == some_manifest()
    assert load_manifest(f"file://{tmp_path}/") == some_manifest()
    plain = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert (plain["schema_version"], plain["degradation"], plain["degradation_version"]) == (3, "BI", 1)
    assert plain["shards"][0]["rows"] == 3
    assert plain["rejected"] == [{"source": "notes.txt", "reason": "not a video"}]


def test_missing_manifest_names_the_command_that_makes_one(tmp_path: Path) -> None:
    assert find_manifest(str(tmp_path)) is None
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"mana ingest --source VIDEO --out {folder}"):
            load_manifest(str(folder))


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    save_manifest(str(tmp_path), dataclasses.replace(some_manifest(), schema_version=4))
    with pytest.raises(UserError, match="newer mana_dist"):
        load_manifest(str(tmp_path))


@pytest.mark.parametrize("version", [1, 2])
def test_older_schema_says_how_to_convert(tmp_path: Path, version: int) -> None:
    save_manifest(str(tmp_path), dataclasses.replace(some_manifest(), schema_version=version))
    with pytest.raises(UserError, match=rf"older mana_dist .schema {version}.*convert it by ingesting.*--overwrite"):
        load_manifest(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 3}', '{"schema_version": 3, "shards": [3]}'])
def test_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_manifest(str(tmp_path))


def test_differences_name_the_settings() -> None:
    other = dataclasses.replace(some_manifest(), degradation="BD", stride=1, samples=0, shards=())
    assert some_manifest().differences(other) == ["degradation: BI -> BD", "stride: 2 -> 1"]
    assert some_manifest().differences(some_manifest()) == []
