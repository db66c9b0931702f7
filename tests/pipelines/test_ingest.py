"""The ingest: its task on single clips, what it adds up to, how it refuses, and the whole of it on Ray."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mana_dist import storage
from mana_dist.data.degradation import Degradation, degrade
from mana_dist.data.manifest import Manifest, load_manifest, save_manifest
from mana_dist.data.samples import read_row_group
from mana_dist.errors import UserError
from pipelines import ingest
from pipelines.ingest_clip import Outcome, SampleSettings, ingest_clip, shard_stem
from pipelines.sources import expand
from tests.data.videos import noise_frames, write_pictures, write_video

SETTINGS = SampleSettings(Degradation.BI, frames_per_sample=7, stride=2, start=0, stop=None)


def run_command_line(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.ingest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# The task


def test_clip_becomes_shards_of_its_windows(tmp_path: Path) -> None:
    frames = noise_frames(12, 70, 96)
    video = write_video(tmp_path / "my clip.mp4", frames)
    outcome = ingest_clip(str(video), str(tmp_path / "out"), SETTINGS)
    assert outcome.reason == ""
    assert (outcome.source.uri, outcome.source.bytes) == (str(video), video.stat().st_size)
    assert (outcome.source.frames, outcome.source.samples) == (12, 3)
    (shard,) = outcome.shards
    assert shard.path.startswith("my_clip-")
    filesystem, folder = storage.filesystem(str(tmp_path / "out"))
    group = read_row_group(filesystem, f"{folder}/{shard.path}", 0)
    table = pq.read_table(tmp_path / "out" / shard.path)
    assert table["clip"].to_pylist() == ["my clip"] * 3
    assert table["centre"].to_pylist() == [3, 5, 7]
    np.testing.assert_array_equal(group.hr, frames[[3, 5, 7], :68])
    np.testing.assert_array_equal(group.lr[1], degrade(frames[2:9, :68], Degradation.BI))


def test_frame_range_limits_the_clip_and_keeps_its_numbers(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", noise_frames(20))
    settings = SampleSettings(Degradation.BD, frames_per_sample=3, stride=1, start=10, stop=15)
    outcome = ingest_clip(str(folder), str(tmp_path / "out"), settings)
    table = pq.read_table(tmp_path / "out" / outcome.shards[0].path)
    assert table["centre"].to_pylist() == [11, 12, 13]
    assert set(table["clip"].to_pylist()) == {"frames"}


def test_bad_clips_are_refused_with_a_reason(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    raw = write_video(tmp_path / "raw.h264", noise_frames(5))  # without a header that counts its frames
    cases = {
        str(tmp_path / "gone.mp4"): "no such file",
        str(text): "not a video",
        str(write_video(tmp_path / "short.mp4", noise_frames(6))): "only 6 frames",
        str(raw): "only 5 frames",
        str(write_video(tmp_path / "small.mp4", noise_frames(9, 32, 96))): "96x32 is too small",
    }
    for uri, reason in cases.items():
        outcome = ingest_clip(uri, str(tmp_path / "out"), SETTINGS)
        assert reason in outcome.reason
        assert outcome.shards == ()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_truncated_clip_gives_what_can_be_decoded_and_says_how_much_is_missing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", noise_frames(20), faststart=True)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    outcome = ingest_clip(str(video), str(tmp_path / "out"), SETTINGS)
    assert outcome.reason == ""
    assert 10 < outcome.source.frames < 20
    assert outcome.missing == 20 - outcome.source.frames


def test_a_bug_in_one_clip_does_not_take_the_job_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "a.mp4", noise_frames(8))
    monkeypatch.setattr("mana_dist.data.sampling.degrade", lambda *_: 1 / 0)
    assert ingest_clip(str(video), str(tmp_path / "out"), SETTINGS).reason == "ZeroDivisionError: division by zero"


def test_outcomes_cross_as_text(tmp_path: Path) -> None:
    outcome = ingest_clip(str(write_video(tmp_path / "ä.mp4", noise_frames(8))), str(tmp_path / "out"), SETTINGS)
    assert Outcome.from_json(outcome.to_json()) == outcome


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b;rm -rf *.mp4", "...", "ümläut.mov", "x" * 300 + ".mp4"])
def test_shard_names_are_safe_whatever_the_source_is_called(name: str) -> None:
    stem = shard_stem(f"s3://bucket/{name}")
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not stem.startswith(".")
    assert len(stem) < 80
    assert stem != shard_stem(f"s3://other/{name}")


# Sources


def test_folders_stand_for_what_they_hold(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("b.MP4", "a.mkv", ".hidden.mp4", "README.txt", "poster.png"):
        (videos / name).touch()
    takes = tmp_path / "takes"
    for name in ("two", "one"):
        write_pictures(takes / name, noise_frames(1))
    (tmp_path / "empty").mkdir()
    clips, rejected = expand(
        [str(videos), str(takes), str(takes / "one"), str(tmp_path / "empty"), str(tmp_path / "gone.mp4")]
    )
    assert clips == [str(path) for path in (videos / "a.mkv", videos / "b.MP4", takes / "one", takes / "two")]
    assert [(Path(item.source).name, item.reason) for item in rejected] == [
        ("empty", "no videos and no PNG or JPEG frames in this folder or below"),
        ("gone.mp4", "does not exist"),
    ]


def test_folders_are_searched_at_any_depth(tmp_path: Path) -> None:
    """Vimeo90K's layout, and beside it a folder that holds videos as well as pictures."""
    sequences = [tmp_path / "vim" / "sequences" / name for name in ("00001/0001", "00001/0002", "00002/0001")]
    for folder in sequences:
        write_pictures(folder, noise_frames(1))
    write_pictures(tmp_path / "vim" / ".cache" / "0001", noise_frames(1))
    takes = tmp_path / "vim" / "takes"
    takes.mkdir()
    for name in ("b.wmv", "a.flv", "cover.png"):
        (takes / name).touch()
    found = [*map(str, sequences), str(takes / "a.flv"), str(takes / "b.wmv")]
    assert expand([str(tmp_path / "vim")]) == (found, [])
    assert expand([str(tmp_path / "vim" / "sequences")]) == (found[:3], [])


# The manifest


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the tasks in this process, last clip first: outcomes may come in any order."""

    def run(clips: list[str], options: ingest.Options) -> list[Outcome]:
        return [ingest_clip(clip, options.out, options.settings) for clip in reversed(clips)]

    monkeypatch.setattr(ingest, "run_on_ray", run)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_video(tmp_path / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "abc"]


def test_dataset_is_the_same_whatever_the_order_and_the_number_of_calls(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    a, b, c = map(str, clips)
    ingest.main(["--source", a, b, c, "--out", str(tmp_path / "once")])
    ingest.main(["--source", c, "--out", str(tmp_path / "twice")])
    ingest.main(["--source", b, a, "--out", str(tmp_path / "twice")])
    assert tree(tmp_path / "once") == tree(tmp_path / "twice")
    manifest = load_manifest(str(tmp_path / "once"))
    assert (manifest.samples, len(manifest.shards), len(manifest.sources)) == (9, 3, 3)


def test_finished_clips_are_not_done_again_but_changed_ones_are(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray(monkeypatch)
    command = ["--source", *map(str, clips), "--out", str(tmp_path / "out")]
    ingest.main(command)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    ingest.main(command)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    capsys.readouterr()
    write_video(clips[1], noise_frames(15, seed=9))
    ingest.main(command)
    assert "1 clip (2 more are there already)" in capsys.readouterr().out
    assert load_manifest(str(tmp_path / "out")).samples == 3 + 9 + 3


def test_samples_of_a_changed_clip_leave_the_dataset_before_they_are_replaced(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    out = str(tmp_path / "out")
    ingest.main(["--source", *map(str, clips), "--out", out])
    write_video(clips[1], noise_frames(15))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "run_on_ray", killed)
    with pytest.raises(KeyboardInterrupt):
        ingest.main(["--source", *map(str, clips), "--out", out])
    assert [Path(source.uri).name for source in load_manifest(out).sources] == ["a.mp4", "c.mp4"]
    assert load_manifest(out).samples == 6
    with pytest.raises(KeyboardInterrupt):
        ingest.main(["--source", *map(str, clips), "--out", out, "--overwrite"])
    with pytest.raises(UserError, match="no finished sample dataset"):
        load_manifest(out)


def test_other_settings_need_overwrite_and_never_mix(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    out = tmp_path / "out"
    (tmp_path / "out").mkdir()
    (out / "mine.txt").write_text("the user's own file")
    ingest.main(["--source", *map(str, clips), "--out", str(out)])
    again = ["--source", str(clips[0]), "--out", str(out), "--degradation", "BD"]
    with pytest.raises(UserError, match=r"degradation: BI -> BD.*--overwrite"):
        ingest.main(again)
    ingest.main([*again, "--overwrite"])
    manifest = load_manifest(str(out))
    assert (manifest.degradation, manifest.samples) == ("BD", 3)
    assert {path.name for path in out.iterdir()} == {"mine.txt", "manifest.json", manifest.shards[0].path}


def test_rejected_clips_stand_in_the_manifest_until_they_are_mended(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray(monkeypatch)
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    command = ["--source", str(clips[0]), str(bad), str(tmp_path / "gone.mp4"), "--out", str(tmp_path / "out")]
    ingest.main(command)
    assert [Path(item.source).name for item in load_manifest(str(tmp_path / "out")).rejected] == ["bad.mp4", "gone.mp4"]
    assert f"rejected: {bad}: not a video" in capsys.readouterr().err
    write_video(bad, noise_frames(8))
    ingest.main(command)
    manifest = load_manifest(str(tmp_path / "out"))
    assert [Path(item.source).name for item in manifest.rejected] == ["gone.mp4"]
    assert manifest.samples == 3 + 2


def test_leftovers_of_a_killed_run_are_cleared(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    out = tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "0123-x.parquet").write_bytes(b"half")
    (out / "old-0123456789-00000.parquet").write_bytes(b"of a run that wrote no manifest")
    ingest.main(["--source", *map(str, clips), "--out", str(out)])
    assert set(tree(out)) == {"manifest.json", *(shard.path for shard in load_manifest(str(out)).shards)}


# The command line


def test_usage_errors_leave_with_one_line(tmp_path: Path, clips: list[Path]) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 50)
    short = write_video(tmp_path / "short.mp4", noise_frames(5))
    regular_file = tmp_path / "file"
    regular_file.touch()
    out = tmp_path / "out"
    cases: dict[tuple[str | Path, ...], str] = {
        ("--source", tmp_path / "gone.mp4", "--out", out): "gone.mp4: does not exist",
        ("--source", text, "--out", out): "text.mp4: not a video",
        ("--source", short, "--out", out): "short.mp4: only 5 frames in the range asked for; a sample needs 7",
        ("--source", clips[0], "--out", regular_file / "below"): "--out: cannot write to",
    }
    for arguments, message in cases.items():
        result = run_command_line(*arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "--source"),
        (["--source", "x"], "--out"),
        (["--source", "x", "--out", "y", "--degradation", "BX"], "BX"),
        (["--source", "x", "--out", "y", "--frames", "7"], "START:STOP"),
        (["--source", "x", "--out", "y", "--frames-per-sample", "6"], "odd"),
        (["--source", "x", "--out", "y", "--stride", "0"], "--stride"),
        (["--source", "x", "--out", "y", "--strid", "1"], "--strid"),
        (["--source", "gone1.mp4", "gone2.mp4", "--out", "y"], "none of the 2 sources is usable; the first: "),
    ],
)
def test_wrong_options_say_which(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ingest.main(arguments)


def test_manifest_of_a_newer_version_is_left_alone(tmp_path: Path, clips: list[Path]) -> None:
    newer = Manifest(
        schema_version=99,
        degradation="BI",
        degradation_version=1,
        scale=4,
        frames=7,
        stride=1,
        start=0,
        stop=None,
        samples=0,
        shards=(),
        sources=(),
        rejected=(),
    )
    save_manifest(str(tmp_path), newer)
    with pytest.raises(UserError, match="newer"):
        ingest.main(["--source", str(clips[0]), "--out", str(tmp_path)])


# All of it


@pytest.mark.slow
def test_end_to_end_on_ray(tmp_path: Path, clips: list[Path]) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    folder = write_pictures(tmp_path / "takes" / "one", noise_frames(8, seed=5)).parent
    out = tmp_path / "out"
    result = run_command_line("--source", *clips[:2], bad, folder, "--out", out)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == [
        f"rejected: {bad}: not a video that can be read (Invalid data found when processing input)"
    ]
    assert f"train on it: python -m mana_dist.train --config tiny --data.path {out}" in result.stdout
    manifest = load_manifest(str(out))
    assert [(Path(source.uri).name, source.samples) for source in manifest.sources] == [
        ("a.mp4", 3),
        ("b.mp4", 3),
        ("one", 2),
    ]
    table = pq.read_table([out / shard.path for shard in manifest.shards])
    assert table.num_rows == manifest.samples == 8
    # The same bytes as the tasks alone write.
    for clip in manifest.sources:
        ingest_clip(clip.uri, str(tmp_path / "alone"), SampleSettings(Degradation.BI, 7, 1, 0, None))
    assert {name: data for name, data in tree(out).items() if name != "manifest.json"} == tree(tmp_path / "alone")


@pytest.mark.skipif("MANA_TEST_CLIPS" not in os.environ, reason="MANA_TEST_CLIPS names no folder of real clips")
@pytest.mark.parametrize(
    ("name", "flow"),
    [("edgetam_03_skateboarder.mp4", 2.28), ("boofcv_ditch_02.mp4", None), ("edgetam_04_coffee.mp4", 0.22)],
)
def test_real_clips(tmp_path: Path, name: str, flow: float | None) -> None:
    uri = str(Path(os.environ["MANA_TEST_CLIPS"]) / name)
    outcome = ingest_clip(uri, str(tmp_path), SampleSettings(Degradation.BI, 7, 10, 0, 60))
    assert outcome.reason == ""
    table = pq.read_table(tmp_path / outcome.shards[0].path)
    assert table.num_rows == outcome.source.samples == len(range(3, outcome.source.frames - 3, 10))
    if flow is not None:  # measured over the whole clip by others, with Farneback's method too
        assert np.mean(table["flow"].to_pylist()) == pytest.approx(flow, rel=0.6)
