"""The same numbers at any number of workers; a worker that dies; a user's mistake in a worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mana_dist.data.degradation import BI
from mana_dist.errors import UserError
from mana_dist.evaluate import score_tasks
from mana_dist.evaluate.__main__ import parse
from mana_dist.evaluate.datasets import find_datasets
from mana_dist.evaluate.methods import Bicubic
from mana_dist.evaluate.score_tasks import plan
from mana_dist.evaluate.scored_clips import find_clips
from mana_dist.evaluate.scoring import Settings
from tests.evaluate.evaluations import MEASURES
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder, write_pair

TRUNK = ["--lpips-trunk", os.environ["MANA_TEST_LPIPS"]] if "MANA_TEST_LPIPS" in os.environ else []
CLIPS = {"calendar": 4, "city": 3, "walk": 5}


@pytest.mark.parametrize(
    ("clips", "workers", "places", "threads", "expected"),
    [
        (1, None, 16, 16, (1, None)),  # torch as it likes
        (1, 8, 16, 16, (1, None)),
        (2, None, 16, 16, (2, 8)),
        (4, None, 16, 8, (4, 2)),
        (40, None, 16, 16, (16, 1)),
        (40, 4, 16, 16, (4, 1)),
        (40, 1, 16, 16, (1, 1)),
        (3, None, 1, 1, (1, 1)),
    ],
)
def test_plans(clips: int, workers: int | None, places: int, threads: int, expected: tuple[int, int | None]) -> None:
    assert plan(clips, workers, places, threads) == expected


def test_threads_depend_on_the_clips_alone() -> None:
    for clips in (2, 3, 7, 100):
        assert len({plan(clips, workers, 16, 16).threads for workers in (None, 1, 2, 5, 300)}) == 1


def test_numbers_of_workers() -> None:
    least = ["--data", "a", "--method", "bicubic", "--out", "b", "--workers"]
    assert parse([*least, "auto"]).workers is None
    assert parse([*least, "3"]).workers == 3
    for text in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(UserError, match="write auto, or a number|expected one argument"):
            parse([*least, text]).check()


def test_pictures_of_the_clips_that_differ_most_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_tasks, "EXAMPLES", 2)
    for seed in range(4):
        frames = frames_of(1, seed)
        write_folder(tmp_path / "data" / f"{seed}", frames // (1 + seed % 3) + 1)  # 0 and 3 have the most contrast
    clips = find_clips(find_datasets([str(tmp_path / "data")], BI, "auto"))
    scored = score_tasks.score_clips(
        clips,
        Settings(methods=(Bicubic(),), degradation=BI, measures=MEASURES),
        1,
        lambda *_: None,
        lambda _: lambda: None,
    )
    assert [entry.scores.clip for entry in scored] == ["0", "1", "2", "3"]
    assert [bool(entry.examples) for entry in scored] == [True, False, False, True]


def evaluate_apart(out: Path, *arguments: str) -> dict[str, Any]:
    """What ``metrics.json`` says after the command in a process of its own: here Ray may be imported already."""
    command = [sys.executable, "-m", "mana_dist.evaluate", *arguments, "--out", str(out), "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return report


@pytest.mark.slow
def test_two_layouts_at_one_and_two_workers_have_byte_equal_means(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", __file__)  # no folder for a download, in the other process neither
    for seed, (name, length) in enumerate(CLIPS.items()):
        frames = frames_of(length, seed, 50, 67)
        write_folder(tmp_path / "plain" / name, frames)
        write_pair(tmp_path / "cropped", f"GT/{name}", f"BIx4/{name}", frames[:, :48, :64])
    reports = {
        (layout, workers): run(
            tmp_path / f"{layout}-{workers}",
            *["--data", str(tmp_path / layout), "--method", "bicubic", model],
            *["--workers", workers, "--top-motion", "1", *TRUNK],
        )
        for run, layout, workers in (
            (evaluate, "plain", "1"),
            (evaluate, "cropped", "1"),
            (evaluate_apart, "cropped", "2"),
        )
    }
    one, two = reports["cropped", "1"], reports["cropped", "2"]
    assert one["methods"] == two["methods"]
    assert one["top_motion"] == two["top_motion"]
    assert one["protocol"] == two["protocol"]
    assert list(one["methods"][model]["clips"][0].items()) == list(two["methods"][model]["clips"][0].items())
    for method in ("bicubic", model):
        assert mean_of(reports["plain", "1"], method) == mean_of(two, method)
        assert mean_of(two, method)["frames"] == sum(CLIPS.values())
        assert (mean_of(two, method)["lpips"] is not None) == bool(TRUNK)
    written = [(tmp_path / name / "metrics.json").read_bytes() for name in ("cropped-1", "cropped-2")]
    assert written[0] == written[1]


RUN = [sys.executable, "-m", "mana_dist.evaluate", "--method", "bicubic", "--out", "out", "--workers", "2", "--data"]


@pytest.mark.slow
def test_a_mistake_in_a_worker_is_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "good", frames_of(2))
    other = write_folder(tmp_path / "data" / "other", frames_of(2)) / "0001.png"
    Image.fromarray(frames_of(2)[1][:-4]).save(other)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([*RUN, "data"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "all frames of a clip must have one size" in message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "metrics.json").exists()


class WaitingWorker:
    """Scores two frames of a clip, and ends it when the clip's ``uri``, a file, says that they have been counted."""

    def frames(self) -> int:
        return 2

    def score(self, shared: list[Any], clip: Any) -> Any:
        del shared
        while not Path(clip.uri).exists():
            time.sleep(0.01)
        return SimpleNamespace(examples=(), name=clip.name, frames=3)


@pytest.mark.slow
def test_frames_are_counted_while_workers_score_their_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_tasks, "_Worker", WaitingWorker)
    clips: list[Any] = [SimpleNamespace(name=name, uri=str(tmp_path / "counted")) for name in ("a", "b")]
    settings: Any = SimpleNamespace(device="cpu", threads=1)
    counted: list[int] = []

    def on_frames(frames: int) -> None:
        counted.append(frames)
        (tmp_path / "counted").touch()

    with score_tasks._ray(score_tasks.Plan(2, 1)) as cluster:
        found = score_tasks._on_ray(clips, settings, 2, cluster, lambda *_: None, on_frames)
    assert [scored.frames for scored in found] == [3, 3]
    assert counted[0] in {2, 4}  # of one clip or of both


class LeavingWorker:
    """Leaves its process, as if all were well: at the clip ``once`` the first time, at ``always`` every time."""

    def score(self, shared: list[Any], clip: Any) -> Any:
        del shared
        tries = Path(clip.uri)
        before = len(tries.read_text()) if tries.exists() else 0
        tries.write_text("x" * (before + 1))
        if clip.name == "always" or (clip.name == "once" and not before):
            sys.exit(0)
        return SimpleNamespace(examples=(), name=clip.name, frames=1)

    def frames(self) -> int:
        return 0


@pytest.mark.slow
def test_a_worker_that_leaves_is_replaced_and_its_clip_given_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_tasks, "_Worker", LeavingWorker)
    clips: list[Any] = [SimpleNamespace(name=name, uri=str(tmp_path / name)) for name in ("once", "other", "always")]
    settings: Any = SimpleNamespace(device="cpu", threads=1)
    with score_tasks._ray(score_tasks.Plan(2, 1)) as cluster:
        found: Any = score_tasks._on_ray(clips[:2], settings, 1, cluster, lambda *_: None, lambda _: None)
        assert [scored.name for scored in found] == ["once", "other"]
        with pytest.raises(UserError, match=rf"^{tmp_path}/always: the worker process that scored it died 3 times"):
            score_tasks._on_ray(clips[2:], settings, 1, cluster, lambda *_: None, lambda _: None)
    assert [len((tmp_path / name).read_text()) for name in ("once", "other", "always")] == [2, 1, 3]


@pytest.mark.slow
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_worker_is_replaced_and_ctrl_c_ends_it(tmp_path: Path, signal_: signal.Signals) -> None:
    """Frames large enough that a worker is caught at work."""
    for name in ("a", "b"):
        write_folder(tmp_path / "data" / name, frames_of(12, 0, 480, 640))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [*RUN, "data"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        workers = _workers(process)
        os.kill(workers[0] if signal_ == signal.SIGKILL else process.pid, signal_)
        said, errors = process.communicate(timeout=300)
    if signal_ == signal.SIGKILL:
        assert process.returncode == 0, errors
        assert "max_restarts" not in errors
        assert "clip 2/2" in said
        assert (tmp_path / "out" / "metrics.json").exists()
    else:
        assert process.returncode == 130, errors
        assert errors.splitlines()[-1] == "interrupted"
        assert not (tmp_path / "out" / "metrics.json").exists()
        assert "Traceback" not in errors


def _workers(process: "subprocess.Popen[str]", seconds: float = 300) -> list[int]:
    """The processes of the command's actors, once they are there; Ray's title may name either of their two calls."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        found = [pid for pid in _descendants(process.pid) if b"ray::_Worker" in _title(pid)]
        if found:  # one may be done before the other has begun
            return found
        time.sleep(0.05)
    raise AssertionError(f"no workers: {process.communicate(timeout=5) if process.poll() is not None else 'in time'}")


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        direct = [int(child) for child in children.read_text().split()]
    except OSError:
        return []
    return [*direct, *(below for child in direct for below in _descendants(child))]


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
