"""The task of the ingest: what a unit's clips become, and what is said of those that give nothing."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BD, BI, degrade
from mana_dist.data.manifest import Rejected
from mana_dist.footage.expand import Clip, expand
from mana_dist.ingest import run_unit as module
from mana_dist.ingest import units
from mana_dist.ingest.finished_units import Ledger
from mana_dist.ingest.units import UnitResult
from mana_dist.video.strict import numbered_frames, plan_segments
from tests.data.shards import plain_array
from tests.ingest.datasets import clip_at, run, tree
from tests.video.videos import moving_frames, noise_frames, write_pictures, write_video

SETTINGS = SampleSettings(stride=2)


def ingest_clip(clip: Clip, out: Path, settings: SampleSettings = SETTINGS) -> UnitResult:
    return run(units.whole([clip], settings), out, settings)


def reason_of(path: Path, out: Path) -> str:
    (clip,) = ingest_clip(clip_at(path), out).clips
    assert (clip.samples, bool(clip.reason)) == (0, True)
    return clip.reason


def test_clip_becomes_shards_of_its_windows(tmp_path: Path) -> None:
    frames = noise_frames(12, 70, 96)
    result = ingest_clip(clip_at(write_video(tmp_path / "my clip.mp4", frames)), tmp_path / "out")
    (clip,) = result.clips
    assert (clip.frames, clip.samples, clip.note, clip.reason) == (12, 3, "", "")
    (shard,) = result.shards
    assert shard.path.startswith("my_clip-")
    assert shard.unit == result.group == result.name
    table = pq.read_table(tmp_path / "out" / shard.path)
    assert table["clip"].to_pylist() == ["my clip"] * 3
    assert table["source"].to_pylist() == [str(tmp_path / "my clip.mp4")] * 3
    assert table["centre"].to_pylist() == [3, 5, 7]
    np.testing.assert_array_equal(plain_array(table, "hr"), frames[[3, 5, 7], :68])
    np.testing.assert_array_equal(plain_array(table, "lr")[1], degrade(frames[2:9, :68], BI))


def test_frame_range_limits_the_clip_and_keeps_its_numbers(tmp_path: Path) -> None:
    settings = SampleSettings(degradation=BD, frames_per_sample=3)
    folder = write_pictures(tmp_path / "frames", noise_frames(20))
    result = ingest_clip(clip_at(folder, start=10, stop=15), tmp_path / "out", settings)
    assert pq.read_table(tmp_path / "out" / result.shards[0].path)["centre"].to_pylist() == [11, 12, 13]


def test_a_pack_of_clips_shares_its_shards_and_refuses_each_clip_alone(tmp_path: Path) -> None:
    good = [write_pictures(tmp_path / "v" / name, noise_frames(7, seed=ord(name))) for name in "ac"]
    short = write_pictures(tmp_path / "v" / "b", noise_frames(5))
    clips = [clip_at(path) for path in sorted((*good, short))]
    result = run(units.whole(clips, SETTINGS), tmp_path / "out", SETTINGS)
    assert [(clip.samples, clip.reason) for clip in result.clips] == [
        (1, ""),
        (0, "only 5 frames in the range asked for; a sample needs 7"),
        (1, ""),
    ]
    (shard,) = result.shards
    table = pq.read_table(tmp_path / "out" / shard.path)
    assert table["clip"].to_pylist() == ["a", "c"]
    assert table["source"].to_pylist() == [str(path) for path in good]


def test_bad_clips_are_refused_with_a_reason(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    still = np.repeat(moving_frames(1), 9, axis=0)
    cases = {
        text: "not a video",
        write_video(tmp_path / "short.mp4", noise_frames(6)): "only 6 frames",
        write_video(tmp_path / "raw.h264", noise_frames(5)): "only 5 frames",
        write_video(tmp_path / "small.mp4", noise_frames(9, 32, 96)): "96x32 is too small; both sides must be",
        write_video(tmp_path / "still.mp4", still): "no sample in its 9 frames: 8 repeat the one before (--min-change)",
    }
    for path, reason in cases.items():
        assert reason in reason_of(path, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*.parquet") if path.is_file()]


def test_truncated_clip_gives_what_can_be_decoded_and_says_so(tmp_path: Path) -> None:
    frames = noise_frames(20)
    video = write_video(tmp_path / "a.mp4", frames, faststart=True)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    result = ingest_clip(clip_at(video), tmp_path / "out", SampleSettings())
    (clip,) = result.clips
    assert 10 < clip.frames < 20
    table = pq.read_table(tmp_path / "out" / result.shards[0].path)
    hr = plain_array(table, "hr")
    np.testing.assert_array_equal(hr, frames[table["centre"].to_pylist()])
    assert clip.note


def test_damage_in_the_middle_leaves_out_what_it_touches(tmp_path: Path) -> None:
    """The frames before and after are kept, with their numbers; the good clip beside it is kept whole."""
    frames = noise_frames(120, seed=3)
    video = write_video(tmp_path / "v" / "a.mp4", frames, keyframes=10)
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    video.write_bytes(data)
    other = write_video(tmp_path / "v" / "b.mp4", noise_frames(8))
    settings = SampleSettings()
    result = run(units.whole([clip_at(video), clip_at(other)], settings), tmp_path / "out", settings)
    damaged, whole = result.clips
    assert whole.samples == 2
    assert damaged.note
    assert 80 <= damaged.samples < 114 - 10
    table = pa.concat_tables([pq.read_table(tmp_path / "out" / shard.path) for shard in result.shards])
    of_damaged = [row for row, source in enumerate(table["source"].to_pylist()) if source == str(video)]
    hr = plain_array(table, "hr")[of_damaged]
    np.testing.assert_array_equal(hr, frames[table["centre"].take(of_damaged).to_pylist()])


def test_segments_give_the_samples_of_the_whole(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", noise_frames(70), keyframes=10)
    settings = SampleSettings()
    segments = plan_segments(str(video), 16, units.overlap(settings))
    assert len(segments) >= 3
    parts = [run(unit, tmp_path / "parts", settings) for unit in units.split(clip_at(video), segments, settings)]
    whole = ingest_clip(clip_at(video), tmp_path / "whole", settings)
    one = pq.read_table(tmp_path / "whole" / whole.shards[0].path)
    many = [pq.read_table(tmp_path / "parts" / shard.path) for part in parts for shard in part.shards]
    for column in ("centre", "lr", "hr", "flow", "clip"):
        assert [value for table in many for value in table[column].to_pylist()] == one[column].to_pylist()
    assert sum(part.clips[0].samples for part in parts) == 64


def test_a_bug_in_one_clip_does_not_take_the_job_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "a.mp4", noise_frames(8))
    monkeypatch.setattr("mana_dist.data.sampling.degrade_clip", lambda *_: 1 / 0)
    assert reason_of(video, tmp_path / "out") == "ZeroDivisionError: division by zero"


def test_a_unit_is_recorded_when_it_is_done_and_not_when_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_at(write_video(tmp_path / "a.mp4", noise_frames(8)))
    unit = units.whole([clip], SETTINGS)
    result = run(unit, tmp_path / "out", SETTINGS)
    assert Ledger(str(tmp_path / "out")).find([unit.name, "other"]) == {unit.name: result}

    def storage_down(*_: object, **__: object) -> None:
        raise ConnectionResetError("the server went away")

    monkeypatch.setattr("mana_dist.ingest.pair_frames.numbered_frames", storage_down)
    failed = run(unit, tmp_path / "other", SETTINGS)
    assert failed.failure == "the storage failed (the server went away); run the same command again"
    assert not failed.fatal
    assert Ledger(str(tmp_path / "other")).find([unit.name]) == {}


def test_an_output_that_cannot_be_written_stops_the_job(tmp_path: Path) -> None:
    clip = clip_at(write_video(tmp_path / "a.mp4", noise_frames(8)))
    (tmp_path / "file").touch()
    failed = ingest_clip(clip, tmp_path / "file" / "out")
    assert failed.fatal
    assert "cannot be written" in failed.failure


def test_a_record_counts_only_while_its_shards_are_whole(tmp_path: Path) -> None:
    unit = units.whole([clip_at(write_video(tmp_path / "a.mp4", noise_frames(8)))], SETTINGS)
    out = tmp_path / "out"
    result = run(unit, out, SETTINGS)
    shard = out / result.shards[0].path
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert Ledger(str(out)).find([unit.name]) == {}
    shard.write_bytes(whole)
    assert Ledger(str(out)).find([unit.name]) == {unit.name: result}
    (out / ".work" / f"{unit.name}.json").write_text("{half")
    assert Ledger(str(out)).find([unit.name]) == {}


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    unit = units.whole([clip_at(write_video(tmp_path / "a.mp4", noise_frames(8)))], SETTINGS)
    for name in ("one", "two"):
        run(unit, tmp_path / name, SETTINGS)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.skipif("MANA_TEST_CLIPS" not in os.environ, reason="MANA_TEST_CLIPS names no folder of real clips")
@pytest.mark.parametrize(
    ("name", "flow"),
    [("edgetam_03_skateboarder.mp4", 2.28), ("boofcv_ditch_02.mp4", None), ("edgetam_04_coffee.mp4", 0.22)],
)
def test_real_clips(tmp_path: Path, name: str, flow: float | None) -> None:
    clip = clip_at(Path(os.environ["MANA_TEST_CLIPS"]) / name, stop=60)
    result = ingest_clip(clip, tmp_path, SampleSettings(stride=10))
    assert result.clips[0].reason == ""
    table = pq.read_table(tmp_path / result.shards[0].path)
    assert table.num_rows == result.clips[0].samples == len(range(3, result.clips[0].frames - 3, 10))
    if flow is not None:  # measured over the whole clip by others, with Farneback's method too
        assert np.mean(table["flow"].to_pylist()) == pytest.approx(flow, rel=0.6)


def test_a_pack_with_many_damaged_clips_is_begun_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each of them would be work that grows with their square."""
    clips = []
    for name in "abcd":
        video = write_video(tmp_path / "v" / f"{name}.mp4", noise_frames(120, seed=ord(name)), keyframes=10)
        data = bytearray(video.read_bytes())
        if name != "c":
            data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
        video.write_bytes(data)
        clips.append(clip_at(video))
    decoded: list[str] = []

    def noted(uri: str, *arguments: object, **options: object) -> object:
        decoded.append(uri)
        return numbered_frames(uri, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("mana_dist.ingest.pair_frames.numbered_frames", noted)
    together = run(units.whole(clips, SETTINGS), tmp_path / "out", SETTINGS)
    assert decoded == [clips[0].uri, *(clip.uri for clip in clips)]
    apart = [ingest_clip(clip, tmp_path / "apart").clips[0] for clip in clips]
    assert list(together.clips) == apart
    assert [bool(clip.note) for clip in apart] == [True, True, False, True]


def test_whatever_goes_wrong_in_a_unit_is_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception would take the results of other units along, and come out as a process that died."""
    monkeypatch.setattr(module, "_write", lambda *_: 1 / 0)
    clip = clip_at(write_video(tmp_path / "a.mp4", noise_frames(8)))
    assert ingest_clip(clip, tmp_path / "out").failure == "ZeroDivisionError: division by zero"


def test_pictures_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", noise_frames(20))
    (folder / "im10.png").write_bytes(b"no picture")
    (clip,) = ingest_clip(clip_at(folder), tmp_path / "out", SampleSettings()).clips
    assert (clip.samples, clip.note) == (3 + 4, "1 of its pictures cannot be read")


def test_no_sample_spans_a_missing_number(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", noise_frames(20), "{:04}.png")  # 0001.png to 0020.png
    (folder / "0010.png").unlink()
    (clip,) = ingest_clip(clip_at(folder), tmp_path / "out", SampleSettings()).clips
    told = "its numbers do not go on from 0009.png to 0011.png"
    assert (clip.frames, clip.samples, clip.note) == (19, 3 + 4, told)
    (table,) = (pq.read_table(path) for path in (tmp_path / "out").glob("*.parquet"))
    assert table["centre"].to_pylist() == [3, 4, 5, 12, 13, 14, 15]
    (few,) = ingest_clip(clip_at(folder, start=4, stop=14), tmp_path / "few", SampleSettings()).clips
    assert (few.samples, few.reason) == (0, f"no sample in its 10 frames: a sample needs 7 in a row; {told}")


def test_two_files_for_each_frame_are_refused_alone_and_beside_another_clip(cases: Path) -> None:
    reason = "holds both 0001.jpg and 0001.png; keep one file for each frame"
    for arguments, there in (([cases / "frames"], ["good"]), ([cases / "frames" / "twice"], [])):
        clips, rejected, *_ = expand(map(str, arguments))
        assert [clip.name for clip in clips] == there
        assert rejected == [Rejected(str(cases / "frames" / "twice"), reason)]
