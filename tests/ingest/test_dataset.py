"""A dataset and its sources: what is there is not done again, what changed is replaced, readers never see half."""

import dataclasses
import functools
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mana_dist.child_task import Task
from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import find_manifest, load_manifest, save_manifest
from mana_dist.data.samples import Sample
from mana_dist.errors import UserError
from mana_dist.ingest import contact_sheet, dataset, unit_tasks, units
from mana_dist.ingest.__main__ import main
from mana_dist.storage import lease
from mana_dist.storage.lease import Owner
from mana_dist.video import READER_VERSION
from mana_dist.video.strict import numbered_frames
from tests.data.written_dataset import write_dataset
from tests.ingest.datasets import rows, tree, without_ray
from tests.video.videos import moving_frames, noise_frames, write_pictures, write_video
from tests.web_server import WebServer, web_server


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_video(tmp_path / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "abc"]


def ingest(out: Path, *sources: Path | str, options: tuple[str, ...] = ()) -> None:
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


def test_a_changed_source_is_replaced_with_those_that_share_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small clips share shards, also with clips that are not named again."""
    monkeypatch.setattr(units, "PACKS", 1)
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

    monkeypatch.setattr(unit_tasks, "run", killed)
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
        patch.setattr(unit_tasks, "plan", None)  # what was refused is not tried again while it is the same
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

        patch.setattr("mana_dist.ingest.pair_frames.numbered_frames", fails_for_b)
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


def test_a_changed_clip_that_cannot_be_read_keeps_its_old_samples(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is taken up again by the next run."""
    out = tmp_path / "out"
    ingest(out, clips[0])
    before = load_manifest(str(out))
    write_video(clips[0], noise_frames(12, seed=7))

    def fails(*_: object, **__: object) -> object:
        raise ConnectionResetError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("mana_dist.ingest.pair_frames.numbered_frames", fails)
        ingest(out, clips[0])
    assert load_manifest(str(out)).shards == before.shards
    assert all((out / shard.path).exists() for shard in before.shards)
    ingest(out, clips[0])
    assert load_manifest(str(out)).samples == 6


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


@pytest.mark.parametrize(("version", "what"), [(99, "newer"), (2, "older .* the same ingest with --overwrite")])
def test_a_dataset_of_another_schema_is_left_alone(tmp_path: Path, clips: list[Path], version: int, what: str) -> None:
    save_manifest(str(tmp_path), dataclasses.replace(SampleSettings().empty_manifest(), schema_version=version))
    before = mtimes(tmp_path)
    with pytest.raises(UserError, match=what):
        ingest(tmp_path, clips[0])
    assert mtimes(tmp_path) == before
    ingest(tmp_path, clips[0], options=("--overwrite",))
    assert load_manifest(str(tmp_path)).samples


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


def test_a_run_killed_before_its_contact_sheet_makes_up_for_it(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the sheet would go on showing the dataset as it was before."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    for sources in (clips[:1], clips):
        ingest(undisturbed, *sources)
    ingest(out, clips[0])
    with monkeypatch.context() as patch:
        patch.setattr(contact_sheet, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(out, *clips)
    ingest(out, *clips)
    assert tree(out) == tree(undisturbed)


def test_half_written_files_of_a_killed_run_are_cleared(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out"
    ingest(out, *clips)
    content = tree(out)
    for name in ("manifest.json", "contact_sheet.png", "sources-0123456789ab.parquet"):
        (out / f".{name}.partial-k3_x9a1b").write_bytes(b"half")
    (out / ".mana_dist-write-test-01234567").write_bytes(b"ok")
    (out / "..mana_dist-write-test-01234567.partial-0f0f0f0f").write_bytes(b"")
    ingest(out, *clips)
    assert tree(out) == content


def test_samples_whose_shards_and_sources_are_both_gone_leave_the_manifest(tmp_path: Path) -> None:
    a, b = (write_video(tmp_path / name / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "ab")
    out = tmp_path / "out"
    ingest(out, a, b)
    a.unlink()
    next(out.glob("a-*.parquet")).unlink()
    ingest(out, b)
    manifest = load_manifest(str(out))
    assert (manifest.samples, manifest.clips) == (3, 1)
    assert all((out / shard.path).exists() for shard in manifest.shards)
    assert [item.source for item in manifest.rejected] == [str(a)]


def test_what_was_no_clip_is_forgotten_once_it_stands_for_some(tmp_path: Path, clips: list[Path]) -> None:
    out, pattern = tmp_path / "out", tmp_path / "more" / "*.mp4"
    named_in_list = tmp_path / "list.txt"
    named_in_list.write_text("takes\n")
    ingest(out, clips[0], pattern, named_in_list, tmp_path / "never.mp4")
    assert len(load_manifest(str(out)).rejected) == 3
    write_video(tmp_path / "more" / "d.mp4", noise_frames(8))
    write_video(tmp_path / "takes" / "e.mp4", noise_frames(8))
    ingest(out, pattern, named_in_list)
    assert [item.source for item in load_manifest(str(out)).rejected] == [str(tmp_path / "never.mp4")]


def test_a_dataset_among_its_sources_does_not_take_its_contact_sheet_for_one(tmp_path: Path) -> None:
    takes = write_pictures(tmp_path / "takes" / "one", noise_frames(8)).parent
    ingest(takes / "samples", takes)
    content = tree(takes / "samples")
    ingest(takes / "samples", takes)
    assert tree(takes / "samples") == content
    with pytest.raises(UserError, match=r"--out: .*one is itself a source"):
        ingest(takes / "one", takes)


def test_a_file_that_must_not_be_read_costs_its_pack_mates_nothing(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        decode = numbered_frames

        def refuses_b(uri: str, *arguments: object, **options: object) -> object:
            if uri.endswith("b.mp4"):
                raise PermissionError(13, "access denied", uri)
            return decode(uri, *arguments, **options)  # type: ignore[arg-type]

        patch.setattr("mana_dist.ingest.pair_frames.numbered_frames", refuses_b)
        ingest(out, *clips)
    manifest = load_manifest(str(out))
    assert (manifest.samples, [item.source for item in manifest.rejected]) == (6, [str(clips[1])])
    assert manifest.rejected[0].reason.startswith("cannot be read ([Errno 13] access denied")
    assert not (out / ".work").exists()
    ingest(out, *clips)
    manifest = load_manifest(str(out))
    assert (manifest.samples, manifest.rejected) == (9, ())


def test_an_ingest_owns_the_dataset_while_it_works(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run = unit_tasks.run

    def with_another_one(*arguments: object) -> object:
        results = list(run(*arguments))  # type: ignore[arg-type]
        with pytest.raises(UserError) as told:
            ingest(out, clips[2])
        owner = Owner.parse((out / ".lease").read_bytes())
        assert (owner.host, owner.pid) == (socket.gethostname(), os.getpid())
        assert str(told.value) == (
            f"--out {out} belongs to another attempt, which is at work ({owner}); wait for it, stop it, or name "
            "another --out"
        )
        return results

    with monkeypatch.context() as patch:
        patch.setattr(lease, "hold", functools.partial(lease.hold, length=0.6))  # renewed ten times a second
        patch.setattr(unit_tasks, "run", with_another_one)
        ingest(out, clips[1])
    assert load_manifest(str(out)).samples == 3
    ingest(out, clips[0])
    assert load_manifest(str(out)).samples == 6
    assert not (out / ".lease").exists()


def test_an_ingest_that_lost_the_dataset_writes_nothing_more(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has taken it over while this one was halted, and is done."""
    out = tmp_path / "out"
    on_ray = vars(unit_tasks)["map_on_ray"]  # in this process, by the fixture

    def halted(items: Sequence[str], task: Task, name: Callable[[str], str]) -> Iterator[str]:
        if items:
            monkeypatch.setattr(unit_tasks, "map_on_ray", on_ray)
            (out / ".lease").unlink()
            ingest(out, clips[2])
            before.update(tree(out))
        return on_ray(items, task, name)

    before: dict[str, bytes] = {}
    monkeypatch.setattr(unit_tasks, "map_on_ray", halted)
    with pytest.raises(UserError, match=r"its \.lease is gone, another attempt may"):
        ingest(out, clips[1])
    assert tree(out) == before
    assert load_manifest(str(out)).samples == 3


def test_shards_that_somebody_deleted_meanwhile_are_not_published(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run = unit_tasks.run

    def with_a_loss(*arguments: object) -> object:
        results = list(run(*arguments))  # type: ignore[arg-type]
        (out / results[0].shards[0].path).unlink()
        return results

    with monkeypatch.context() as patch:
        patch.setattr(unit_tasks, "run", with_a_loss)
        with pytest.raises(UserError, match="another ingest has worked on it meanwhile; run the same command again"):
            ingest(out, clips[1])
    ingest(out, clips[1])
    assert load_manifest(str(out)).samples == 3


def test_storage_of_the_dataset_that_fails_is_one_line(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mana_dist.ingest.dataset.save_manifest", full)
    with pytest.raises(UserError, match=r"its storage failed \(.*No space left.*run the same command again"):
        ingest(tmp_path / "out", clips[0])


def test_nothing_is_added_to_samples_made_in_python(tmp_path: Path, clips: list[Path]) -> None:
    """The table of sources does not know them: they would vanish from the manifest."""
    out, sample = tmp_path / "out", Sample(np.zeros((7, 16, 16, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), 3, 0.0)
    written = write_dataset(str(out), [sample], clip="mine")
    with pytest.raises(UserError, match="made in Python"):
        ingest(out, clips[0], options=("--keep-cuts", "--min-change", "0", "--min-detail", "0"))
    assert load_manifest(str(out)) == written


def test_a_long_video_without_samples_is_refused_as_a_whole(tmp_path: Path, clips: list[Path]) -> None:
    still = write_video(tmp_path / "still.mp4", np.repeat(noise_frames(1, 256, 256), 90, axis=0), keyframes=10)
    ingest(tmp_path / "out", still, clips[0], options=("--segment-frames", "20"))
    (refused,) = load_manifest(str(tmp_path / "out")).rejected
    assert refused.reason.startswith("none of its parts gives a sample; the first: no sample in its ")
    assert [(row.clip, row.frames, row.samples) for row in rows(tmp_path / "out")] == [("a", 9, 3), ("still", 90, 0)]


def test_a_long_video_is_read_to_be_cut_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped run leaves where it is cut to the next."""
    film = write_video(tmp_path / "film.mp4", noise_frames(90, seed=1), keyframes=10)
    options = ("--segment-frames", "20")
    ingest(tmp_path / "undisturbed", film, options=options)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unit_tasks, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path / "out", film, options=options)
    monkeypatch.setattr(unit_tasks, "plan_segments", None)
    ingest(tmp_path / "out", film, options=options)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_what_another_reader_of_video_read_is_not_added_to(tmp_path: Path, clips: list[Path]) -> None:
    out = tmp_path / "out"
    ingest(out, clips[0])
    manifest = load_manifest(str(out))
    assert manifest.reader == READER_VERSION
    text = json.loads((out / "manifest.json").read_text())
    del text["reader"]  # as manifests were before readers had versions
    (out / "manifest.json").write_text(json.dumps(text))
    before = mtimes(out)
    with pytest.raises(UserError, match=f"other settings .reader: 1 -> {READER_VERSION}.; name another --out"):
        ingest(out, *clips)
    assert mtimes(out) == before
    ingest(out, *clips, options=("--overwrite",))
    assert load_manifest(str(out)).reader == READER_VERSION


@pytest.mark.parametrize("mark", [None, "reader-1", f"reader-{READER_VERSION}", "reader-999-schema-3"])
def test_an_ingest_that_another_reader_or_writer_began_is_not_continued(
    tmp_path: Path, clips: list[Path], mark: str | None
) -> None:
    out = tmp_path / "out"
    (out / ".work").mkdir(parents=True)
    record = out / ".work" / "clip-0123456789ab.json"
    record.write_text("{}")
    if mark:
        (out / ".work" / mark).touch()
    with pytest.raises(UserError, match="an ingest was begun there by a mana_dist that reads videos or writes shards"):
        ingest(out, *clips)
    assert record.exists()
    ingest(out, *clips, options=("--overwrite",))
    assert load_manifest(str(out)).samples == 9
    assert not record.exists()


# Passwords


@pytest.fixture
def served(clips: list[Path]) -> Iterator[WebServer]:
    with web_server() as server:
        server.files = {f"/{clip.name}": clip.read_bytes() for clip in clips} | {"/no.mp4": b"no video"}
        yield server


def links(server: WebServer, secret: str, *names: str) -> list[str]:
    host = server.url.replace("://", f"://me:{secret}@")
    return [f"{host}/{name}.mp4?size=1&access_token={secret}" for name in names]


def test_secrets_of_urls_are_neither_kept_nor_told(
    tmp_path: Path, served: WebServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def stored() -> bytes:
        tables = [pq.read_table(path).to_pylist() for path in out.glob("sources-*")]  # they are compressed
        return b"".join([*(path.read_bytes() for path in out.rglob("*") if path.is_file()), str(tables).encode()])

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "publish", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            ingest(out, *links(served, "hunter2", "a", "no", "gone"))
    assert list((out / ".work").glob("*.json"))
    assert b"hunter2" not in stored()
    before = mtimes(out)
    ingest(out, *links(served, "other3", "a", "no", "gone"))  # goes on, with another password
    assert {name: before[name] for name in before if name.endswith(".parquet")}.items() <= mtimes(out).items()
    ingest(out, *links(served, "third4", "a", "no", "gone"), options=("--dry-run",))
    manifest = load_manifest(str(out))
    hidden = [uri.replace("me:***", "***") for uri in links(served, "***", "gone", "no")]
    assert [item.source for item in manifest.rejected] == hidden
    told = "".join(capfd.readouterr())
    assert "2 clips there already" in told
    assert hidden[0] in told
    for secret in ("hunter2", "other3", "third4"):
        assert secret not in told
        assert secret.encode() not in stored()


def test_sources_that_differ_in_secrets_alone_are_refused(tmp_path: Path, served: WebServer) -> None:
    with pytest.raises(UserError, match=r"a\.mp4\?size=1&access_token=\*\*\*: two sources differ in what is secret"):
        ingest(tmp_path / "out", *links(served, "one", "a"), *links(served, "two", "a"))


def test_shards_shared_with_a_source_whose_password_is_not_kept(
    tmp_path: Path, served: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "PACKS", 1)
    ingest(tmp_path / "out", *links(served, "one", "a", "b"))
    served.files["/a.mp4"] += b"\0"
    with pytest.raises(UserError, match=r"b\.mp4\?.*its password is not recorded; name it as --source too"):
        ingest(tmp_path / "out", *links(served, "one", "a"))
    ingest(tmp_path / "out", *links(served, "one", "a", "b"))
    assert load_manifest(str(tmp_path / "out")).clips == 2


def test_wanted_motion_stands_in_the_manifest_where_it_is_asked_for(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", moving_frames(9))
    out = tmp_path / "out"
    main(["--source", str(clip), "--out", str(out), "--min-motion", "0.2", "--max-motion", "9"])
    values = json.loads((out / "manifest.json").read_text())
    assert (values["min_motion"], values["max_motion"], values["samples"]) == (0.2, 9, 3)
    with pytest.raises(UserError, match=r"made with other settings \(min_motion: 0.2 -> 0.0; max_motion: 9.0 -> None"):
        main(["--source", str(clip), "--out", str(out)])
    with pytest.raises(UserError, match=r"a.mp4: no sample in its 9 frames: 3 samples move too little or too much"):
        main(["--source", str(clip), "--out", str(tmp_path / "none"), "--min-motion", "50"])
    with pytest.raises(UserError, match="--max-motion must be at least 2.0, got 1.0"):
        main(["--source", str(clip), "--out", str(out), "--min-motion", "2", "--max-motion", "1"])
    main(["--source", str(clip), "--out", str(tmp_path / "any")])
    assert not {"min_motion", "max_motion"} & json.loads((tmp_path / "any" / "manifest.json").read_text()).keys()
