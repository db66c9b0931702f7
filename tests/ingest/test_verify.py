"""Verification: nothing to say of a whole dataset; each kind of damage gives a line that names it and its mend."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import Manifest, Shard, load_manifest, save_manifest
from mana_dist.data.samples import Sample, ShardWriter
from mana_dist.errors import UserError
from mana_dist.ingest import sources_table, verify
from mana_dist.ingest.sources_table import SourceRow
from tests.data.written_dataset import write_dataset

FRAMES = 3


def sample(centre: int, seed: int = 0, height: int = 16, width: int = 24, left: int = 0) -> Sample:
    rng = np.random.default_rng([seed, centre, left])
    return Sample(
        lr=rng.integers(0, 256, (FRAMES, height, width, 3), dtype=np.uint8),
        hr=rng.integers(0, 256, (4 * height, 4 * width, 3), dtype=np.uint8),
        centre=centre,
        flow=1.0,
        left=left,
    )


def source(name: str, unit: str, samples: int) -> SourceRow:
    return SourceRow(
        uri=f"/videos/{name}.mp4",
        clip=name,
        unit=unit,
        bytes=1000,
        modified=1e9,
        start=0,
        stop=None,
        downscale=1,
        frames=20,
        samples=samples,
        cuts=0,
        duplicates=0,
        flat=0,
        note="" if samples else "only 2 frames",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of two clips, a film in two segments with several row groups and patches, and a clip that gave nothing."""
    folder = tmp_path_factory.mktemp("whole") / "samples"
    shards: list[Shard] = []
    with ShardWriter(str(folder), stem="clips-1", unit="clips-1") as writer:
        for clip, count in (("a", 4), ("b", 2)):
            for centre in range(count):
                writer.add(sample(centre), clip=clip, source=f"/videos/{clip}.mp4")
        shards += writer.close()
    for segment, centres in enumerate((range(8), range(8, 13))):
        with ShardWriter(str(folder), stem=f"film-2-s{segment}", unit="film-2", group_bytes=60_000) as writer:
            for centre in centres:
                for left in (0, 8):  # two patches of a frame
                    writer.add(sample(centre, 1, left=left), clip="film", source="/videos/film.mp4")
            shards += writer.close()
    rows = [source("a", "clips-1", 4), source("b", "clips-1", 2), source("film", "film-2", 26), source("none", "", 0)]
    manifest = dataclasses.replace(
        SampleSettings(frames_per_sample=FRAMES).empty_manifest(),
        samples=32,
        clips=3,
        sources=sources_table.write(str(folder), rows),
        shards=tuple(shards),
    )
    save_manifest(str(folder), manifest)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "samples")
    return tmp_path / "samples"


def problems(folder: Path) -> list[str]:
    stream = io.StringIO()
    found = verify.verify(str(folder), stream)
    assert all("\n" not in problem and "; " in problem for problem in found)  # a line each, with a mend
    return found


def change(folder: Path, alter: Callable[[Manifest], Manifest]) -> None:
    save_manifest(str(folder), alter(load_manifest(str(folder))))


def with_table(folder: Path, rows: list[SourceRow]) -> None:
    (folder / (load_manifest(str(folder)).sources or "")).unlink()
    name = sources_table.write(str(folder), rows)
    change(folder, lambda manifest: dataclasses.replace(manifest, sources=name))


def test_a_whole_dataset_has_no_problems(folder: Path) -> None:
    (folder / "notes.txt").write_text("the user's own")
    (folder / "contact_sheet.png").touch()
    assert len(load_manifest(str(folder)).shards) == 3
    assert problems(folder) == []


def test_samples_made_in_python_are_verified_too(tmp_path: Path) -> None:
    manifest = write_dataset(str(tmp_path), map(sample, range(5)), clip="noise", frames=FRAMES)
    assert problems(tmp_path) == []
    (tmp_path / manifest.shards[0].path).unlink()
    assert problems(tmp_path) == [f"{manifest.shards[0].path}: is missing; write the dataset again"]


def test_missing_and_cut_shards(folder: Path) -> None:
    first, second, _ = (folder / shard.path for shard in load_manifest(str(folder)).shards)
    first.unlink()
    size = second.stat().st_size
    second.write_bytes(second.read_bytes()[:-100])
    mend = "run the same ingest again: it makes the sources of this shard anew"
    assert problems(folder) == [
        f"{first.name}: is missing; {mend}",
        f"{second.name}: has {size - 100} bytes, not {size}; {mend}",
    ]


@pytest.mark.parametrize("position", np.linspace(0.02, 0.98, 13))
def test_a_flipped_bit_anywhere_in_the_pixels_is_found(folder: Path, position: float) -> None:
    shard = folder / load_manifest(str(folder)).shards[1].path
    data = bytearray(shard.read_bytes())
    end = int.from_bytes(data[-8:-4], "little") + 8  # the footer
    place = 4 + int((len(data) - end - 4) * position)
    data[place] ^= 1 << 3
    shard.write_bytes(data)
    (problem,) = problems(folder)
    assert problem.startswith(f"{shard.name}: ")
    assert problem.endswith("delete it and run the same ingest again: it makes the sources of this shard anew")


def test_all_damaged_row_groups_of_a_shard_are_named_in_one_line(folder: Path) -> None:
    shard = folder / load_manifest(str(folder)).shards[1].path
    metadata = pq.read_metadata(shard)
    assert metadata.num_row_groups > 3
    data = bytearray(shard.read_bytes())
    for group in (1, 3):
        column = metadata.row_group(group).column(1)
        data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    shard.write_bytes(data)
    (problem,) = problems(folder)
    assert f"{shard.name}: row group 1, 3 of {metadata.num_row_groups} cannot be read" in problem


def test_a_damaged_footer(folder: Path) -> None:
    shard = folder / load_manifest(str(folder)).shards[0].path
    data = bytearray(shard.read_bytes())
    length = int.from_bytes(data[-8:-4], "little")
    data[-8 - length : -8 - length // 2] = bytes(length - length // 2)
    shard.write_bytes(data)
    (problem,) = problems(folder)
    assert f"{shard.name}: cannot be read" in problem


def rewrite(folder: Path, position: int, alter: Callable[[pa.Table], pa.Table]) -> str:
    """Put another table in the place of a shard, with its size in the manifest; gives the shard's name."""
    shard = load_manifest(str(folder)).shards[position]
    path = folder / shard.path
    pq.write_table(alter(pq.read_table(path)), path, row_group_size=shard.group_rows, write_page_checksum=True)
    altered = dataclasses.replace(shard, bytes=path.stat().st_size)
    change(
        folder,
        lambda manifest: dataclasses.replace(
            manifest, shards=tuple(altered if one.path == shard.path else one for one in manifest.shards)
        ),
    )
    return shard.path


def test_other_rows_columns_or_shapes_than_the_manifest_tells(folder: Path) -> None:
    short = rewrite(folder, 0, lambda table: table.slice(0, 5))
    bare = rewrite(folder, 1, lambda table: table.drop_columns("flow"))
    change(
        folder,
        lambda manifest: dataclasses.replace(
            manifest, shards=(*manifest.shards[:2], dataclasses.replace(manifest.shards[2], height=20))
        ),
    )
    first, second, third = problems(folder)
    assert f"{short}: holds 5 rows in 1 groups, not 6 rows" in first
    assert f"{bare}: column flow is missing, not float" in second
    assert "column lr is" in third
    assert "[3,20,24,3]" in third.replace(" ", "")


def test_a_sample_that_is_there_twice(folder: Path) -> None:
    """In two shards of a film: the segments overlap."""

    def overlap(table: pa.Table) -> pa.Table:
        return table.set_column(
            table.schema.get_field_index("centre"), "centre", pa.array([7] * 2 + [9] * 2 + [10] * 6)
        )

    rewrite(folder, 2, overlap)
    found = problems(folder)
    assert found[0].startswith("/videos/film.mp4: the sample at centre 7, top 0, left 0 is there 2 times; ")
    assert found[1].startswith("/videos/film.mp4: the sample at centre 7, top 0, left 8 is there 2 times; ")
    assert len(found) == 4  # and centre 10, left 0 and left 8, 3 times


def test_files_that_look_like_shards_but_are_none(folder: Path) -> None:
    for number in range(7):
        (folder / f"old-0123456789ab-{number:05}.parquet").touch()
    (folder / "sources-0123456789ab.parquet").touch()
    (folder / "mine.parquet").touch()
    (problem,) = problems(folder)
    names = ", ".join(f"old-0123456789ab-{number:05}.parquet" for number in range(5))
    assert problem.startswith(f"{names} and 3 more: not in the manifest")


def test_the_table_of_sources_is_missing_or_damaged(folder: Path) -> None:
    table = folder / (load_manifest(str(folder)).sources or "")
    data = table.read_bytes()
    table.unlink()
    assert problems(folder)[0].startswith(f"{table.name}: the table of sources is missing; ")
    table.write_bytes(data[:-20])
    assert problems(folder)[0].startswith(f"{table.name}: the table of sources cannot be read (")


def test_the_table_of_sources_tells_other_counts(folder: Path) -> None:
    rows = [source("a", "clips-1", 3), source("b", "clips-1", 2), source("film", "film-1", 26)]
    with_table(folder, rows)
    found = problems(folder)
    assert "its sources tell 31 samples, the manifest 32" in found[0]
    assert [problem.split(";")[0] for problem in found[1:]] == [
        "/videos/a.mp4: 4 samples in the shards of clips-1, 3 in the table",
        "/videos/film.mp4: 0 samples in the shards of film-1, 26 in the table",
        "/videos/film.mp4: 26 samples in the shards of film-2, 0 in the table",
    ]


def test_the_manifest_contradicts_itself(folder: Path) -> None:
    change(folder, lambda manifest: dataclasses.replace(manifest, samples=40, clips=4))
    assert [problem.split(";")[0] for problem in problems(folder)] == [
        "manifest.json: tells 40 samples, its shards together 32",
        f"{load_manifest(str(folder)).sources}: its sources tell 32 samples, the manifest 40",
        f"{load_manifest(str(folder)).sources}: 3 of its sources have samples, the manifest tells 4",
    ]


def test_no_dataset_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished sample dataset"):
        verify.verify(str(tmp_path))
