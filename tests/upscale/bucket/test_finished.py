"""A result counts as finished when both it and its record are there."""

from pathlib import Path

import pytest

from mana_dist.upscale.bucket.finished import ResultRecords
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.join import Summary

SUMMARY = Summary(12, 256, 192, 1, ("subtitle (pgs)",), "", ("x.png",))


def output_in(out: Path, name: str = "sub/film.mp4", crf: int = 1) -> Output:
    return Output("/in/film.mkv", name, str(out / name), 7, 1.5).keyed({"crf": crf})


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def finished(tmp_path: Path) -> Output:
    """A result that is in its place, with its record."""
    output = output_in(tmp_path)
    touch(Path(output.uri))
    ResultRecords(str(tmp_path)).save(output, SUMMARY)
    return output


def test_a_finished_result_is_found(tmp_path: Path, finished: Output) -> None:
    assert ResultRecords(str(tmp_path)).finished([finished, output_in(tmp_path, "other.mp4")]) == {
        finished.key: SUMMARY
    }


def test_nothing_is_finished_without_the_result_or_with_other_settings(tmp_path: Path, finished: Output) -> None:
    assert ResultRecords(str(tmp_path)).finished([output_in(tmp_path, crf=2)]) == {}
    Path(finished.uri).unlink()
    assert ResultRecords(str(tmp_path)).finished([finished]) == {}
    assert ResultRecords(str(tmp_path / "not there")).finished([finished]) == {}


def test_a_damaged_record_is_none(tmp_path: Path, finished: Output) -> None:
    (record,) = (tmp_path / ".work").iterdir()
    record.write_text("{")
    assert ResultRecords(str(tmp_path)).finished([finished]) == {}


def test_a_folder_of_pictures_is_there_with_its_last_file(tmp_path: Path) -> None:
    output = output_in(tmp_path, "sub/film")
    touch(tmp_path / "sub" / "film" / "00000000.png")
    ResultRecords(str(tmp_path)).save(output, SUMMARY)
    assert ResultRecords(str(tmp_path)).finished([output]) == {}
    touch(tmp_path / "sub" / "film" / "timestamps.csv")
    assert ResultRecords(str(tmp_path)).finished([output]) == {output.key: SUMMARY}


def test_finished_segments_are_those_with_a_record(tmp_path: Path) -> None:
    output = output_in(tmp_path)
    folder = tmp_path / ".work" / output.key
    assert ResultRecords(str(tmp_path)).folder(output) == str(folder)
    for name in ("segment-000000.mkv", "segment-000000.json", "segment-000001.mkv"):
        touch(folder / name)
    assert ResultRecords(str(tmp_path)).finished_segments(output) == {"segment-000000"}


def test_work_of_the_same_result_is_deleted_once_it_is_there(tmp_path: Path, finished: Output) -> None:
    again, other = output_in(tmp_path, crf=2), output_in(tmp_path, "other.mp4")
    for output in (finished, again, other):
        touch(tmp_path / ".work" / output.key / "segment-000000.mkv")
    ResultRecords(str(tmp_path)).save(again, SUMMARY)
    assert {path.name for path in (tmp_path / ".work").iterdir()} == {f"{again.key}.json", other.key}


def test_a_refused_source_leaves_nothing(tmp_path: Path, finished: Output) -> None:
    again = output_in(tmp_path, crf=2)
    touch(tmp_path / ".work" / again.key / "segment-000000.mkv")
    ResultRecords(str(tmp_path)).forget(again)
    assert list((tmp_path / ".work").iterdir()) == []


def test_half_written_results_of_a_killed_run_are_deleted(tmp_path: Path) -> None:
    output, pictures = output_in(tmp_path), output_in(tmp_path, "take")
    ours = [tmp_path / "sub" / ".film.mp4.partial-ab12.mp4", tmp_path / ".take.partial-0123abcd" / "00000000.png"]
    others = [tmp_path / ".film.mp4.partial-ab12.mp4", tmp_path / "sub" / "film.mp4", tmp_path / ".take.txt"]
    for path in (*ours, *others):
        touch(path)
    ResultRecords(str(tmp_path)).clear_partial([output, pictures])
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_precision_is_kept_for_each_device(tmp_path: Path) -> None:
    records = ResultRecords(str(tmp_path))
    records.save_precision("cpu", "bf16")
    records.save_precision("cuda", "fp32")
    assert [records.precision(device) for device in ("cpu", "cuda", "tpu")] == ["bf16", "fp32", None]
    (tmp_path / ".work" / "precision-cpu.json").write_text('{"precision": ')
    assert records.precision("cpu") is None  # a record that cannot be read is no record
