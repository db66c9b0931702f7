"""The command as its users call it: the single-process run's bytes, whatever is killed on the way."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from mana_dist.errors import UserError
from mana_dist.model.precision import Processor, precision_here
from mana_dist.registry import pretrained
from mana_dist.storage import lease
from mana_dist.upscale.__main__ import main
from mana_dist.upscale.bucket import segment_tasks, stages
from mana_dist.upscale.bucket.segment_tasks import Failure, Recipe, Upscaler, Video
from mana_dist.upscale.join import Summary
from mana_dist.upscale.segments import Segment
from tests.conftest import RunHere
from tests.upscale.bucket.runs import command, run_command_line, sha256, single_process, write_film, write_model
from tests.video.videos import noise_frames, write_pictures


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _precision_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no cluster, which most of these tests do not need."""
    monkeypatch.setattr(stages, "precision", precision_here)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do all work in this process, without Ray."""

    def upscaled(
        jobs: Sequence[stages.Job], recipe: Recipe, *_: int
    ) -> Iterator[tuple[Video, Segment, Failure | None]]:
        for video, segment in jobs:
            yield video, segment, Upscaler(recipe).upscale(video, segment)

    class Joins:
        def __init__(self, recipe: Recipe) -> None:
            self._recipe, self._videos = recipe, list[Video]()

        def start(self, video: Video) -> None:
            self._videos.append(video)

        def done(self, *, wait: bool) -> Iterator[tuple[Video, Summary | Failure]]:
            del wait
            while self._videos:
                video = self._videos.pop()
                yield video, segment_tasks.finish(video, self._recipe)

    monkeypatch.setattr(stages, "device", lambda _: "cpu")
    monkeypatch.setattr(stages, "workers", lambda *_: 1)
    monkeypatch.setattr(stages, "upscale", upscaled)
    monkeypatch.setattr(stages, "Joins", Joins)


def test_it_fails_where_no_source_is_usable(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "device", lambda _: "cpu")  # without a cluster, which it does not come to
    bad = tmp_path / "films" / "bad.mp4"
    bad.parent.mkdir()
    bad.write_text("no video")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=f"^{bad}: not a video that can be read"):
        main(["--source", str(bad), "--out", str(out), "--model", model])
    take = write_pictures(tmp_path / "take", noise_frames(2))
    with pytest.raises(UserError, match="none of the 2 sources is usable; the first: .*is a folder of pictures"):
        main(["--source", str(bad), str(take), "--out", str(out), "--model", model])
    report = json.loads((out / "upscale.json").read_text())
    assert [Path(item["source"]).name for item in report["rejected"]] == ["take", "bad.mp4"]


def test_names_that_are_too_long_for_the_results_are_refused_before_the_work(tmp_path: Path, model: str) -> None:
    films = [write_film(tmp_path / "films" / name, 2) for name in ("x" * 252 + ".ts", "x" * 240 + ".mp4")]
    out = ["--out", str(tmp_path / "out"), "--model", model, "--compare"]
    with pytest.raises(UserError, match="its name is too long: 256 bytes, .*rename it"):
        main(["--source", *map(str, films[:1]), *out])
    with pytest.raises(UserError, match="none of the 2 sources is usable; the first: .*too long"):
        main(["--source", *map(str, films), *out])
    with pytest.raises(UserError, match=r"--out: s3://bucket/x+: what lies below is too deep \(its key is too long"):
        main(
            ["--source", str(write_film(tmp_path / "a.mp4", 2)), "--out", "s3://bucket/" + "x" * 900, "--model", model]
        )


def test_results_that_another_attempt_works_on_are_refused(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, out = write_film(tmp_path / "film.mp4", 24), tmp_path / "out"
    monkeypatch.setattr(stages, "device", lambda _: "cpu")
    with (
        lease.hold(str(out), "out", "wait", length=0.6),  # renewed ten times a second
        pytest.raises(UserError, match=rf"--out {out} belongs to another attempt, which is at work \(process "),
    ):
        main(["--source", str(film), "--out", str(out), "--model", model])
    assert list(out.iterdir()) == []


def test_work_outlives_a_refusal_that_comes_after_the_first_look(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, out = write_film(tmp_path / "film.mp4", 24), tmp_path / "out"

    def refused(jobs: Sequence[stages.Job], recipe: Recipe, *_: int) -> Iterator[tuple[Video, Segment, Failure | None]]:
        yield *jobs[0], Upscaler(recipe).upscale(*jobs[0])
        yield *jobs[1], Failure("its frames change size", rejected=True)

    monkeypatch.setattr(stages, "device", lambda _: "cpu")
    monkeypatch.setattr(stages, "workers", lambda *_: 1)
    monkeypatch.setattr(stages, "upscale", refused)
    monkeypatch.setattr(stages.Joins, "__init__", lambda *_: None)
    monkeypatch.setattr(stages.Joins, "done", lambda *_, wait: iter(()))
    with pytest.raises(UserError, match="its frames change size"):
        main(["--source", str(film), "--out", str(out), "--model", model, "--segment", "12"])
    assert len(list((out / ".work").glob("*/segment-000000.json"))) == 1
    film.write_text("no video any more")
    with pytest.raises(UserError, match="not a video that can be read"):
        main(["--source", str(film), "--out", str(out), "--model", model, "--segment", "12"])
    assert list((out / ".work").glob("*/*")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_results_are_those_of_one_process_and_made_once(tmp_path: Path, model: str, run_here: RunHere) -> None:
    """First by a command on Ray; what that made needs no Ray any more."""
    sources = tmp_path / "sources"
    films = [write_film(sources / "film.mp4", 60), write_film(sources / "sub" / "short.mkv", 14)]
    (sources / "bad.mp4").write_text("no video")
    out = sources / "out"  # among the sources: results must not be taken for sources
    arguments: tuple[str | Path, ...] = ("--source", sources, "--out", out, "--model", model, "--segment", "12")
    first = run_command_line(*arguments)
    assert first.returncode == 0, first.stderr
    reason = "not a video that can be read (Invalid data found when processing input)"
    assert first.stderr.splitlines() == [f"rejected: {sources}/bad.mp4: {reason}"]
    alone = tmp_path / "alone.mp4"
    results = [out / "film.mp4", out / "sub" / "short.mp4"]
    for film, result in zip(films, results, strict=True):
        assert sha256(result) == single_process(film, alone, "--model", model, "--segment", "12"), film
    report = json.loads((out / "upscale.json").read_text())
    entries = [(item["source"], item["output"], item["frames"]) for item in report["results"]]
    assert entries == [(str(films[0]), "film.mp4", 60), (str(films[1]), "sub/short.mp4", 14)]
    assert report["rejected"] == [{"source": str(sources / "bad.mp4"), "reason": reason}]
    assert report["failed"] == []
    made = [result.stat().st_mtime_ns for result in results]
    write_film(sources / "sub" / "new.mp4", 12)
    second = run_here(main, *arguments)
    assert second.returncode == 0, second.stderr
    assert "3 videos (2 there before)" in second.stdout
    assert [result.stat().st_mtime_ns for result in results] == made
    assert (out / "sub" / "new.mp4").exists()


@pytest.mark.usefixtures("local")
def test_the_model_in_the_package_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Workers take that of their own package, by its name: its path may be another there."""
    film, out = write_film(tmp_path / "film.mp4", 3, 16, 24), tmp_path / "out"
    main(["--source", str(film), "--out", str(out), "--precision", "fp32"])
    assert capsys.readouterr().out.startswith("model: pretrained (version")
    report = json.loads((out / "upscale.json").read_text())
    weights = Path(pretrained.folder()) / "model.safetensors"
    assert report["model"] == {"uri": "pretrained", "sha256": sha256(weights)}
    assert sha256(out / "film.mp4") == single_process(film, tmp_path / "alone.mp4", "--precision", "fp32")


@pytest.mark.usefixtures("local")
def test_another_jobs_results_are_refused_before_any_work_and_replaced_when_told(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    films = tmp_path / "films"
    for name in ("a", "b"):
        write_film(films / f"{name}.mp4", 12)
    out = tmp_path / "out"
    arguments = ["--source", str(films), "--out", str(out), "--model", model, "--preset", "ultrafast"]
    main(arguments)
    first = sha256(out / "a.mp4")
    capsys.readouterr()
    main(arguments)
    main([*arguments, "--overwrite"])
    assert capsys.readouterr().out.count("2 videos (2 there before)") == 2
    (out / "b.mp4").unlink()
    with pytest.raises(UserError, match=r"out/a\.mp4: is there already, and another .*--overwrite"):
        main([*arguments, "--crf", "40"])
    assert sha256(out / "a.mp4") == first
    assert not (out / "b.mp4").exists()
    (out / "a.mp4.compare.png").write_text("mine")
    (out / "a.mp4").unlink()
    with pytest.raises(UserError, match=r"out/a\.mp4\.compare\.png: is there already"):
        main(arguments)
    main([*arguments, "--overwrite"])
    assert sha256(out / "a.mp4") == first
    assert not (out / "a.mp4.compare.png").exists()


def test_a_report_of_something_else_is_left_alone(tmp_path: Path, model: str) -> None:
    film, report = write_film(tmp_path / "film.mp4", 12), tmp_path / "out" / "upscale.json"
    report.parent.mkdir()
    for text in ("mine", '{"films": 3}', "3"):
        report.write_text(text)
        with pytest.raises(UserError, match=r"upscale\.json: is there already, and no report of this command"):
            main(["--source", str(film), "--out", str(tmp_path / "out"), "--model", model])
        assert report.read_text() == text


@pytest.mark.usefixtures("local")
def test_a_result_whose_record_was_never_written_is_its_own(tmp_path: Path, model: str) -> None:
    """The driver was killed between the two."""
    film, out = write_film(tmp_path / "film.mp4", 12), tmp_path / "out"
    arguments = ["--source", str(film), "--out", str(out), "--model", model, "--preset", "ultrafast"]
    main(arguments)
    (record,) = (out / ".work").glob("film.mp4-*.json")
    record.unlink()
    main(arguments)
    assert record.exists()


@pytest.mark.usefixtures("local")
def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path, model: str, run_here: RunHere) -> None:
    film = write_film(tmp_path / "film.mp4", 12)
    other = tmp_path / "out" / "film" / "letter.txt"
    other.parent.mkdir(parents=True)
    other.write_text("dear")
    result = run_here(main, "--source", film, "--out", tmp_path / "out", "--model", model, "--codec", "png")
    assert result.returncode == 2
    assert "the folder is not empty; name a new one" in result.stderr
    assert other.read_text() == "dear"


def below(pid: int) -> Iterator[int]:
    """Return all processes that descend from one."""
    with contextlib.suppress(OSError):  # it ended just now
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from below(int(child))


def command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def all_workers(pid: int, count: int) -> list[int]:
    """The workers of a command, as soon as there are ``count``: they start one after another."""
    deadline = time.monotonic() + 300
    while len(workers := [child for child in below(pid) if b"ray::Map" in command_line(child)]) < count:
        assert time.monotonic() < deadline, workers
        time.sleep(0.05)
    assert len(workers) == count
    return workers


def until_gone(pids: Sequence[int]) -> None:
    """Ray's processes end when they see that their driver is gone."""
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=300)
    assert not [pid for pid in pids if b"ray" in command_line(pid)]


def until_records(work: Path, count: int, process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Yield the number of finished segments, until there are ``count``."""
    deadline = time.monotonic() + 300
    while (there := len(list(work.glob("*/*.json")))) < count:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
        yield there


@pytest.mark.cluster
def test_killed_workers_and_a_killed_driver_leave_the_same_bytes(tmp_path: Path, model: str) -> None:
    film = write_film(tmp_path / "film.mp4", 300, 96, 128)
    out = tmp_path / "out"
    common = ("--model", model, "--segment", "12")
    arguments: tuple[str | Path, ...] = ("--source", film, "--out", out, *common)
    expected = single_process(film, tmp_path / "alone.mp4", *common)
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in until_records(out / ".work", 2, process):
            pass
        workers = all_workers(process.pid, min(os.cpu_count() or 1, 25))
        os.kill(workers[0], signal.SIGKILL)
        # It goes on without the one that was killed, which is started anew.
        for _ in until_records(out / ".work", 8, process):
            pass
        rest = list(below(process.pid))
        agents = [pid for pid in rest if b"Agent" in command_line(pid)]  # of Ray: they take a minute
        process.send_signal(signal.SIGKILL)
    until_gone([pid for pid in rest if pid not in agents])
    finished = {path: path.stat().st_mtime_ns for path in (out / ".work").glob("*/*.json")}
    assert 8 <= len(finished) < 25
    assert not (out / "film.mp4").exists()
    result = run_command_line(*arguments)
    assert result.returncode == 0, result.stderr
    assert f"going on: {len(finished)} of 25 segments were finished before" in result.stdout
    assert sha256(out / "film.mp4") == expected
    assert [path.name for path in out.rglob("*") if path.is_file() and path.suffix != ".json"] == ["film.mp4"]
    until_gone(agents)


@pytest.mark.usefixtures("local")
def test_precision_once_chosen_is_kept_on_whatever_processor(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was made in bf16 is done, and what is added to it is made in bf16, by a node that does not gain."""
    write_film(tmp_path / "films" / "a.mp4", 3)
    options = ["--source", str(tmp_path / "films"), "--out", str(tmp_path / "out"), "--model", model]
    for unit, begun in (("AMX", "it: AMX"), ("", "as the results were begun")):
        monkeypatch.setattr("mana_dist.model.precision.processor_here", lambda _, unit=unit: Processor("it", unit))
        main(options)
        assert f"precision: bf16 ({begun})" in capsys.readouterr().out
        report = json.loads((tmp_path / "out" / "upscale.json").read_text())
        assert report["settings"]["precision"] == "bf16"
        write_film(tmp_path / "films" / "b.mp4", 3)
    assert {entry["output"] for entry in report["results"]} == {"a.mp4", "b.mp4"}
