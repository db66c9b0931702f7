"""The files of an evaluation: numbers first, kept whatever fails later, and nothing of an earlier one beside them."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mana_dist.errors import UserError
from mana_dist.evaluate import report, run_evaluation
from mana_dist.evaluate.metrics_file import PARTIAL_FILE
from mana_dist.evaluate.output_folder import OutputFolder
from mana_dist.storage import lease
from tests.evaluate.footage import evaluate, frames_of, write_folder
from tests.video.videos import write_video


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_numbers_are_there_when_the_report_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_folder(tmp_path / "clip", frames_of(2))
    monkeypatch.setattr(report, "publish", full)
    with pytest.raises(
        UserError, match=r"report cannot be written .*No space left.*the numbers are in .*metrics\.json"
    ):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["methods"]["bicubic"]["mean"]["frames"] == 2
    assert "| bicubic" in capsys.readouterr().out


def test_a_folder_that_another_evaluation_works_on_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", frames_of(2))
    out = tmp_path / "out"
    with (
        lease.hold(str(out), "out", "wait", length=0.6),  # renewed ten times a second
        pytest.raises(UserError, match=rf"--out {out} belongs to another attempt, which is at work \(process "),
    ):
        evaluate(out, "--data", str(tmp_path / "clip"), "--method", "bicubic")
    assert names(out) == set()
    evaluate(out, "--data", str(tmp_path / "clip"), "--method", "bicubic")
    assert "metrics.json" in names(out)
    assert ".lease" not in names(out)


def test_an_evaluation_that_ends_while_another_one_is_prepared_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "clip", frames_of(2))
    out, hold = tmp_path / "out", lease.hold
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic"]

    def overtaken(folder: str, name: str, other: str) -> AbstractContextManager[lease.Lease]:
        monkeypatch.setattr(lease, "hold", hold)
        evaluate(out, *arguments, "--border-crop", "1")
        return hold(folder, name, other)

    monkeypatch.setattr(lease, "hold", overtaken)
    with pytest.raises(UserError, match=r"holds metrics\.json of another evaluation .*--overwrite"):
        evaluate(out, *arguments)
    assert json.loads((out / "metrics.json").read_text())["protocol"]["border_crop"] == 1
    assert ".lease" not in names(out)


def test_numbers_that_cannot_be_written_are_on_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "clip", frames_of(2))
    (tmp_path / "out" / "metrics.json").mkdir(parents=True)  # a folder cannot be replaced by a file
    arguments = ["--data", str(tmp_path / "clip"), "--method", "bicubic"]
    with pytest.raises(UserError, match=r"--out: .* cannot be looked at"):
        evaluate(tmp_path / "out", *arguments)
    with pytest.raises(UserError, match=r"--out: .*metrics\.json cannot be written"):
        evaluate(tmp_path / "out", *arguments, "--overwrite")
    assert "| bicubic" in capsys.readouterr().out


def test_a_late_error_keeps_the_clips_that_were_finished_until_a_full_run(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_folder(tmp_path / "data" / name, frames_of(2, seed))
    other = write_folder(tmp_path / "data" / "c", frames_of(2)) / "0001.png"
    Image.fromarray(frames_of(2)[1][:-4]).save(other)
    arguments = ["--data", str(tmp_path / "data"), "--method", "bicubic"]
    partial = tmp_path / "out" / "metrics.partial.json"
    with pytest.raises(UserError) as raised:
        evaluate(tmp_path / "out", *arguments)
    assert "all frames of a clip must have one size" in str(raised.value)
    assert f"the scores of the 2 of 3 clips that were finished are in {partial}" in str(raised.value)
    kept = json.loads(partial.read_text())
    assert kept["unfinished"] == ["c"]
    assert kept["protocol"]["datasets"][0]["digest"] == ""  # which is of all its frames
    assert not (tmp_path / "out" / "metrics.json").exists()

    Image.fromarray(frames_of(2)[1]).save(other)
    full = evaluate(tmp_path / "out", *arguments)
    assert kept["methods"]["bicubic"]["clips"] == full["methods"]["bicubic"]["clips"][:2]
    assert "unfinished" not in full
    assert not partial.exists()


def test_of_a_first_clip_that_fails_nothing_is_kept(tmp_path: Path) -> None:
    Image.fromarray(frames_of(2)[1][:-4]).save(write_folder(tmp_path / "clip", frames_of(2)) / "0001.png")
    with pytest.raises(UserError, match="all frames of a clip must have one size[^;]*$"):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "clip"), "--method", "bicubic")
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("CUDA error")])
def test_what_is_no_users_mistake_keeps_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    for seed, name in enumerate("ab"):
        write_folder(tmp_path / "data" / name, frames_of(2, seed))

    class Interrupted(run_evaluation._ClipLines):
        def finish(self, position: int, scored: object) -> None:
            raise error

    monkeypatch.setattr(run_evaluation, "_ClipLines", Interrupted)
    with pytest.raises(type(error)):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "data"), "--method", "bicubic")
    assert json.loads((tmp_path / "out" / PARTIAL_FILE).read_text())["unfinished"] == ["b"]
    assert f"finished are in {tmp_path / 'out' / PARTIAL_FILE}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("a clip is damaged")])
def test_of_a_folder_that_was_taken_over_no_part_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    out = tmp_path / "out"
    for seed, name in enumerate("ab"):
        write_folder(tmp_path / "data" / name, frames_of(2, seed))

    class TakenOver(run_evaluation._ClipLines):
        def finish(self, position: int, scored: object) -> None:
            (out / lease.FILE).write_bytes(lease.Owner.here().encode())
            raise error

    monkeypatch.setattr(run_evaluation, "_ClipLines", TakenOver)
    with pytest.raises(type(error)) as raised:
        evaluate(out, "--data", str(tmp_path / "data"), "--method", "bicubic")
    assert names(out) == {lease.FILE}
    assert "was taken over by another attempt" in f"{raised.value}{capsys.readouterr().err}"


def test_a_rerun_leaves_nothing_of_the_report_before_it_and_all_that_is_others(tmp_path: Path, model: str) -> None:
    write_folder(tmp_path / "walk", frames_of(3))
    write_folder(tmp_path / "flat", np.full((1, 48, 64, 3), 90, np.uint8))
    evaluate(tmp_path / "out", "--data", str(tmp_path / "walk"), "--method", "bicubic", model)
    assert names(tmp_path / "out") == {"metrics.json", *report.FILES}
    (tmp_path / "out" / "notes.svg").write_text("mine")
    # One frame has no motion and infinite PSNR: neither plot has a point.
    other = ["--data", str(tmp_path / "flat"), "--method", "bicubic"]
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    with pytest.raises(UserError, match=r"holds metrics\.json of another evaluation .*--overwrite"):
        evaluate(tmp_path / "out", *other)
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    evaluate(tmp_path / "out", *other, "--overwrite")
    left = names(tmp_path / "out")
    assert not left & {report.GAIN_FILE, report.PSNR_FILE}
    assert left >= {"metrics.json", "report.html", "report.md", "notes.svg"}


def test_a_rerun_does_not_score_its_own_report(tmp_path: Path) -> None:
    """With --out below --data, and below another method's frames, side_by_side.png would be a clip of one frame."""
    for seed, name in enumerate("ab"):
        write_folder(tmp_path / "data" / name, frames_of(2, seed))
    arguments = ["--data", str(tmp_path / "data"), "--method", "bicubic", f"frames:same={tmp_path / 'data'}"]
    out = tmp_path / "data" / "results"
    first, second = (evaluate(out, *arguments) for _ in range(2))
    assert (out / report.PICTURE_FILE).exists()
    assert [row["name"] for row in second["methods"]["bicubic"]["clips"]] == ["a", "b"]
    assert second["methods"] == first["methods"]
    assert second["methods"]["same"]["mean"]["ssim_rgb"] == 1


def test_an_old_file_that_cannot_be_deleted_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / report.GAIN_FILE / "below").mkdir(parents=True)
    OutputFolder(str(tmp_path)).remove_others([])
    assert f"{tmp_path / report.GAIN_FILE}: cannot be deleted" in capsys.readouterr().out


def test_the_same_evaluation_again_gives_the_same_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "walk", frames_of(2))
    arguments = ["--data", str(tmp_path / "walk"), "--method", "bicubic", "--top-motion", "1"]
    evaluate(tmp_path / "out", *arguments)
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    evaluate(tmp_path / "out", *arguments)
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    for change in (["--border-crop", "1"], ["--frames", ":1"]):
        with pytest.raises(UserError, match="of another evaluation"):
            evaluate(tmp_path / "out", *arguments, *change)


@pytest.mark.parametrize("name", ["report.html", "metrics.json", "metrics.partial.json"])
def test_a_file_that_no_evaluation_wrote_is_left_alone(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "walk", frames_of(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds {name} of another evaluation or of something else"):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "walk"), "--method", "bicubic")
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_nothing_that_is_written_or_printed_holds_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip on a web server that asks for a password; here the code that reads it finds it on the disk."""
    clip = write_video(tmp_path / "a.mp4", frames_of(2))
    uri = "http://ann:s3cret@host/a.mp4"
    monkeypatch.setattr("mana_dist.storage.web.open_read", lambda _: open(clip, "rb"))  # noqa: SIM115
    monkeypatch.setattr("mana_dist.storage.web.head", lambda _: (clip.stat().st_size, None))
    evaluate(tmp_path / "out", "--data", uri, "--method", "bicubic")
    output = capsys.readouterr().out
    for path in (tmp_path / "out").iterdir():
        assert b"s3cret" not in path.read_bytes(), path
    assert "s3cret" not in output
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["protocol"]["data"] == ["http://***@host/a.mp4"]
