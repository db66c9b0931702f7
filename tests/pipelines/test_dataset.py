"""A dataset and its sources: what is there is not done again, what changed is replaced, readers never see half."""

import dataclasses
from pathlib import Path

import pytest

from mana_dist.data.decode import numbered_frames
from mana_dist.data.manifest import find_manifest, load_manifest, save_manifest
from mana_dist.data.settings import SampleSettings
from mana_dist.errors import UserError
from pipelines.ingest import job, run_unit
from pipelines.ingest.__main__ import main
from tests.data.videos import noise_frames, write_pictures, write_video
from tests.pipelines.datasets import rows, tree, without_ray


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_video(tmp_path / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "abc"]


def ingest(out: Path, *sources: Path, options: tuple[str, ...] = ()) -> None:
    main(["--source", *map(str, sources), "--out", str(out), *options])


def mtimes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_dataset_is_the_same_whatever_the_order_of_the_sources(tmp_path: Path, clips: list[Path]) -> None:
    a, b, c = clips
    ingest(tmp_path / "one", a, b, c)
    ingest(tmp_path / "two", c, a, b, a)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    manifest = load_manifest(str(tmp_path / "one"))
    assert (manifest.samples, manifest.clips, len(rows(tmp_path / "one"))) == (9, 3, 3)


def test_new_sources_are_added_and_those_there_are_not_touched(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out"
    ingest(out, clips[0])
    before = mtimes(out)
    ingest(out, *clips)
    (old,) = [name for name in before if name.startswith("a-")]
    assert mtimes(out)[old] == before[old]
    assert load_manifest(str(out)).samples == 9
    assert [Path(row.uri).name for row in rows(out)] == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_second_run_changes_nothing(tmp_path: Path, clips: list[Path]) -> None:
    ingest(tmp_path / "out", *clips)
    before, content = mtimes(tmp_path / "out"), tree(tmp_path / "out")
    ingest(tmp_path / "out", *clips)
    after = mtimes(tmp_path / "out")
    assert tree(tmp_path / "out") == content
    assert {name for name in after if after[name] != before[name]} <= {
        row for row in after if row.startswith("sources-")
    }


def test_a_changed_source_is_replaced_with_those_that_share_its_shards(tmp_path: Path) -> None:
    """Small clips share shards, also with clips that are not named again."""
    folder = tmp_path / "v"
    a, b = (write_video(folder / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "ab")
    ingest(tmp_path / "out", a, b)
    (unit,) = {row.unit for row in rows(tmp_path / "out")}
    write_video(b, noise_frames(15, seed=9))
    ingest(tmp_path / "out", b)
    assert {(Path(row.uri).name, row.samples) for row in rows(tmp_path / "out")} == {("a.mp4", 3), ("b.mp4", 9)}
    assert unit not in {row.unit for row in rows(tmp_path / "out")}
    assert load_manifest(str(tmp_path / "out")).samples == 12
    a.unlink()
    write_video(b, noise_frames(11, seed=9))
    ingest(tmp_path / "out", b)
    assert [(Path(row.uri).name, row.samples) for row in rows(tmp_path / "out")] == [("b.mp4", 5)]
    (gone,) = load_manifest(str(tmp_path / "out")).rejected
    assert (gone.source, gone.reason) == (str(a), "is gone, and shared shards with clips that changed")


def test_other_frames_of_a_source_replace_those_there(tmp_path: Path, clips: list[Path]) -> None:
    ingest(tmp_path / "out", clips[0])
    ingest(tmp_path / "out", clips[0], options=("--frames", ":8"))
    assert [(row.stop, row.samples) for row in rows(tmp_path / "out")] == [(8, 2)]


def test_sources_whose_shards_are_missing_or_damaged_are_done_again(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out"
    ingest(out, *clips)
    content = tree(out)
    shards = load_manifest(str(out)).shards
    (out / shards[0].path).unlink()
    (out / shards[-1].path).write_bytes(b"half")
    ingest(out, *clips)
    assert tree(out) == content


def test_readers_see_the_old_dataset_until_the_new_one_is_whole(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ingest(out, *clips)
    before = load_manifest(str(out))
    write_video(clips[1], noise_frames(15))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", killed)
    for options in ((), ("--overwrite",), ("--overwrite", "--degradation", "BD")):
        with pytest.raises(KeyboardInterrupt):
            ingest(out, *clips, options=options)
        assert load_manifest(str(out)) == before
        assert all((out / shard.path).stat().st_size == shard.bytes for shard in before.shards)


def test_other_settings_need_overwrite_and_never_mix(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("the user's own file")
    ingest(out, *clips)
    with pytest.raises(UserError, match=r"degradation: BI -> BD.*--overwrite"):
        ingest(out, clips[0], options=("--degradation", "BD"))
    with pytest.raises(UserError, match=r"patch: 0 -> 16.*--overwrite"):
        ingest(out, clips[0], options=("--patch", "16"))
    ingest(out, clips[0], options=("--degradation", "BD", "--overwrite"))
    manifest = load_manifest(str(out))
    assert (manifest.degradation, manifest.samples) == ("BD", 3)
    (shard,) = manifest.shards
    assert {path.name for path in out.iterdir()} == {
        *("mine.txt", "manifest.json", "contact_sheet.png"),
        *(shard.path, str(manifest.sources)),
    }


def test_rejected_clips_stand_in_the_manifest_until_they_are_mended(
    tmp_path: Path, clips: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, bad = tmp_path / "out", tmp_path / "bad.mp4"
    bad.write_text("no video")
    sources = (clips[0], bad, tmp_path / "gone.mp4")
    ingest(out, *sources)
    assert [Path(item.source).name for item in load_manifest(str(out)).rejected] == ["bad.mp4", "gone.mp4"]
    assert f"rejected: {bad}: not a video" in capsys.readouterr().err
    before = find_manifest(str(out))
    with monkeypatch.context() as patch:
        patch.setattr(job, "plan", None)  # what was refused is not tried again while it is the same
        ingest(out, *sources)
    assert find_manifest(str(out)) == before
    write_video(bad, noise_frames(8))
    ingest(out, *sources)
    manifest = load_manifest(str(out))
    assert [Path(item.source).name for item in manifest.rejected] == ["gone.mp4"]
    assert manifest.samples == 3 + 2


def test_what_could_not_be_finished_is_taken_up_again(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = tmp_path / "whole"
    ingest(whole, *clips)
    with monkeypatch.context() as patch:
        decode = numbered_frames

        def fails_for_b(uri: str, *arguments: object, **options: object) -> object:
            if uri.endswith("b.mp4"):
                raise ConnectionResetError("gone")
            return decode(uri, *arguments, **options)  # type: ignore[arg-type]

        patch.setattr(run_unit, "numbered_frames", fails_for_b)
        # each clip alone in its folder, so that one failure spoils no other
        apart = [write_video(tmp_path / name / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "ab"]
        ingest(out, *apart)
    manifest = load_manifest(str(out))
    assert (manifest.samples, [item.reason for item in manifest.rejected]) == (
        3,
        ["the storage failed (gone); run the same command again"],
    )
    ingest(out, *apart)
    manifest = load_manifest(str(out))
    assert (manifest.samples, manifest.rejected) == (6, ())
    assert not (out / ".work").exists()


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "0123-x.parquet").write_bytes(b"half")
    (out / "old-0123456789ab-00000.parquet").write_bytes(b"of a run that wrote no manifest")
    (out / "old-0123456789ab-s00003-00000.parquet").write_bytes(b"of a long video")
    (out / "sources-0123456789ab.parquet").write_bytes(b"of an older manifest")
    ingest(out, *clips)
    manifest = load_manifest(str(out))
    expected = {"manifest.json", "contact_sheet.png", str(manifest.sources), *(shard.path for shard in manifest.shards)}
    assert set(tree(out)) == expected


def test_a_damaged_table_of_sources_says_so(tmp_path: Path, clips: list[Path]) -> None:
    ingest(tmp_path / "out", clips[0])
    (table,) = (tmp_path / "out").glob("sources-*.parquet")
    table.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"table of sources .* cannot be read .*--overwrite"):
        ingest(tmp_path / "out", clips[1])


def test_manifest_of_a_newer_version_is_left_alone(tmp_path: Path, clips: list[Path]) -> None:
    save_manifest(str(tmp_path), dataclasses.replace(SampleSettings().empty_manifest(), schema_version=99))
    with pytest.raises(UserError, match="newer"):
        ingest(tmp_path, clips[0])


def test_long_videos_are_split_and_small_ones_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_video(tmp_path / "film.mp4", noise_frames(90, seed=1), keyframes=10)
    folder = write_pictures(tmp_path / "takes" / "one", noise_frames(8, seed=5))
    ingest(tmp_path / "out", film, folder, options=("--segment-frames", "20"))
    assert "[5/5]" in capsys.readouterr().out
    manifest = load_manifest(str(tmp_path / "out"))
    assert (manifest.samples, manifest.clips) == (84 + 2, 2)
    assert len({shard.unit for shard in manifest.shards}) == 2
    assert [(row.clip, row.frames, row.samples) for row in rows(tmp_path / "out")] == [
        ("film", 90, 84),
        ("one", 8, 2),
    ]
