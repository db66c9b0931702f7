"""The ingest as its users call it: one line for a mistake, and the same bytes however often it was killed."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from mana_dist.data.degradation import BI, degrade
from mana_dist.data.manifest import load_manifest
from mana_dist.errors import UserError
from mana_dist.ingest.__main__ import main
from tests.conftest import RunHere
from tests.ingest.datasets import command, rows, run_command_line, tree, without_ray
from tests.video.videos import noise_frames, write_pictures, write_video


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_video(tmp_path / name / f"{name}.mp4", noise_frames(9, seed=ord(name))) for name in "ab"]


def test_usage_errors_leave_with_one_line(tmp_path: Path, clips: list[Path], run_here: RunHere) -> None:
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
        ("--verify", out): "no finished sample dataset there",
    }
    for arguments, message in cases.items():
        result = run_here(main, *arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
    result = run_command_line(*next(iter(cases)))  # the same in a process of its own
    assert (result.returncode, result.stderr.count("\n"), result.stderr[:7]) == (2, 1, "error: ")
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
        (["--source", "x", "--out", "y", "--patch", "8"], "--patch must be 0 or at least 16"),
        (["--source", "x", "--out", "y", "--min-change", "nan"], "--min-change"),
        (["--source", "x", "--out", "y", "--strid", "1"], "--strid"),
        (["--verify", "x", "--out", "y"], "--verify"),
        (["--source", "gone1.mp4", "gone2.mp4", "--out", "y"], "none of the 2 sources is usable; the first: "),
    ],
)
def test_wrong_options_say_which(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments)


def title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now
        return " ".join(process.cmdline())
    return ""


def kill_when_recorded(arguments: tuple[str | Path, ...], work: Path, records: int, held: Path, count: int) -> None:
    """Start the command, kill -9 it when at least ``records`` units are recorded, and wait until no unit is worked on.

    Of its units ``count`` are done: see ``held_ingest``. Ray's agents are not waited for: they try for a minute to tell
    Ray that it is gone.
    """
    held.mkdir()
    line = [sys.executable, "-m", "tests.ingest.held_ingest", str(held), str(count), *map(str, arguments)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while len(list(work.glob("*.json"))) < records:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        rest = psutil.Process(process.pid).children(recursive=True)
        agents = [child for child in rest if "Agent" in title(child)]
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(set(rest).difference(agents), timeout=300)  # when they see that their driver is gone
    assert not alive
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.kill()


def whole_and_killed(
    tmp_path: Path, sources: Sequence[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, int]:
    """The dataset of an undisturbed ingest, that of one that was killed with ``count`` units at most, and how many."""
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    with monkeypatch.context() as patched:
        without_ray(patched)
        main([*sources, "--out", str(undisturbed)])
    kill_when_recorded((*sources, "--out", out), out / ".work", 2, tmp_path / "held", count)
    recorded = len(list((out / ".work").glob("*.json")))
    assert 2 <= recorded <= count
    assert not (out / "manifest.json").exists()
    return undisturbed, out, recorded


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two that go on with it at once do so one at a time."""
    film = write_video(tmp_path / "film" / "film.mp4", noise_frames(200, 96, 128, seed=1), keyframes=10)
    sources = tuple(map(str, ("--source", film, *clips, "--segment-frames", "20")))
    undisturbed, out, recorded = whole_and_killed(tmp_path, sources, 7, monkeypatch)
    records = [json.loads(path.read_text()) for path in (out / ".work").glob("*.json")]
    finished = {out / shard["path"] for record in records for shard in record["shards"]}
    assert len(finished) >= recorded
    written = {path: path.stat().st_mtime_ns for path in finished}
    results = at_once(2, *sources, "--out", out)
    told = f"{recorded} of 11 tasks were done before it was"
    worked = [printed for code, printed, _ in results if code == 0 and told in printed]
    assert len(worked) == 1, results
    (other,) = [result for result in results if result[1] != worked[0]]
    if other[0] == 2:
        assert "belongs to another attempt, which is at work (process " in other[2]
        assert other[2].count("\n") == 1
    else:  # the first was done before it had renewed
        assert (other[0], other[2]) == (0, "")
        assert "ingest:" not in other[1]
    assert {path: path.stat().st_mtime_ns for path in finished} == written, "a finished unit was done again"
    assert tree(out) == tree(undisturbed)


@pytest.mark.cluster(seconds=40)
@pytest.mark.parametrize("kind", ["BD", "real", "pairs"])
def test_killed_it_goes_on_to_the_same_bytes_with_any_degradation(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(4):
        frames = noise_frames(50, 96, 128, seed=part)
        write_video(tmp_path / "films" / "HR" / f"{part}.mp4", frames, keyframes=10)
        if kind == "pairs":
            write_video(tmp_path / "films" / "LR" / f"{part}.mp4", degrade(frames, BI), keyframes=7)
    sources = ["--source", str(tmp_path / "films"), "--segment-frames", "20"]
    sources += ["--pairs"] if kind == "pairs" else ["--degradation", kind]
    undisturbed, out, recorded = whole_and_killed(tmp_path, sources, 3, monkeypatch)
    result = run_command_line(*sources, "--out", out)
    assert re.search(rf"\b{recorded} of \d+ tasks were done before it was", result.stdout), result.stderr
    assert tree(out) == tree(undisturbed)


def at_once(count: int, *arguments: str | Path) -> list[tuple[int, str, str]]:
    """Start the same command several times at once; exit code, stdout and stderr of each."""
    started = [
        subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    told = [process.communicate(timeout=600) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, told, strict=True)]


@pytest.mark.slow
def test_end_to_end_on_ray(tmp_path: Path, clips: list[Path]) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    folder = write_pictures(tmp_path / "takes" / "one", noise_frames(8, seed=5)).parent
    out = tmp_path / "out"
    arguments: tuple[str | Path, ...] = ("--source", *clips, bad, folder, "--out", out)
    planned = run_command_line(*arguments, "--dry-run")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert f"would be rejected: {bad}: not a video" in planned.stdout
    assert not out.exists()
    result = run_command_line(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == [
        f"rejected: {bad}: not a video that can be read (Invalid data found when processing input)"
    ]
    assert f"train on them: mana train --config tiny --data.path {out}" in result.stdout
    manifest = load_manifest(str(out))
    assert [(row.clip, row.samples) for row in rows(out) if row.samples] == [("a", 3), ("b", 3), ("one", 2)]
    assert sum(pq.read_table(out / shard.path).num_rows for shard in manifest.shards) == manifest.samples == 8
    verified = run_command_line("--verify", out)
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (0, f"{out}: whole")


def test_a_picture_that_no_ingest_wrote_is_left_alone(tmp_path: Path, clips: list[Path]) -> None:
    sheet = tmp_path / "out" / "contact_sheet.png"
    sheet.parent.mkdir()
    sheet.write_text("mine")
    for more in ([], ["--dry-run"]):
        with pytest.raises(UserError, match=r"contact_sheet\.png: is there already, and no dataset that it could show"):
            main(["--source", str(clips[0]), "--out", str(tmp_path / "out"), *more])
    assert sheet.read_text() == "mine"


@pytest.mark.parametrize("bad", ["no such source", "no video", "too small", "out is a file", "out below a file"])
def test_what_the_ingest_refuses_its_dry_run_refuses_alike(
    tmp_path: Path, clips: list[Path], capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    (tmp_path / "file.mp4").write_text("no video")
    source = {"no such source": tmp_path / "gone.mp4", "no video": tmp_path / "file.mp4"}.get(bad, clips[0])
    out = {"out is a file": "file.mp4", "out below a file": "file.mp4/new"}.get(bad, "new/out")
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--source", str(source), "--out", str(tmp_path / out), *(["--patch", "999"] * (bad == "too small"))]
    told = []
    for more in (["--dry-run"], []):
        with pytest.raises(UserError) as refused:
            main([*arguments, *more])
        told.append(str(refused.value))
    assert told[0] == told[1]
    assert "nothing was written" not in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_writes_nothing(tmp_path: Path, clips: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    main(["--source", str(clips[0]), "--out", str(tmp_path / "new" / "out"), "--dry-run"])
    assert capsys.readouterr().out.endswith("0 clips there already; nothing was written\n")
    assert sorted(tmp_path.rglob("*")) == before
