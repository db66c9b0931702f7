"""A clip's process: the command's own lines, and an end when it is stopped, late, or alone."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.registry.names import check_model_folder
from mana_dist.serve import ServeOptions
from mana_dist.serve.web_page import sample_clip
from mana_dist.serve.web_page.page_service import PageService
from mana_dist.serve.web_page.run_clip_job import run_clip_job
from mana_dist.upscale.config import Settings
from mana_dist.upscale.sources import survey_of
from mana_dist.video.reading import read_frames
from tests.serve.web_page.servers import ANNE
from tests.train.trainings import environment


def look(source: Path, **changes: Any) -> dict[str, Any]:
    poster = str(source.with_name("poster.png"))
    return {"kind": "inspect", "source": str(source), "poster": poster, "pixels": 10**6, "sample": False} | changes


def run(task: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
    said: dict[str, Any] = {}
    run_clip_job(task, said.update, threading.Event(), seconds)
    return said


def test_the_pages_own_clip_is_a_video_of_small_moving_frames(tmp_path: Path) -> None:
    said = run(look(tmp_path / "source.mp4", sample=True))
    assert said == {"width": 240, "height": 136, "frames": sample_clip._FRAMES, "rate": 25.0}
    assert (tmp_path / "poster.png").read_bytes().startswith(b"\x89PNG")
    first, *_, last = read_frames(str(tmp_path / "source.mp4"))
    assert abs(first.astype(int) - last).mean() > 2


@pytest.mark.parametrize("data", [b"not a video", b"#EXTM3U\nfile:///etc/passwd\n"])
def test_a_bad_file_gets_the_commands_line(tmp_path: Path, data: bytes) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(data)
    with pytest.raises(UserError) as expected:
        survey_of(str(bad), Settings())
    with pytest.raises(UserError) as found:
        run(look(bad))
    assert str(found.value) == str(expected.value)


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> list[list[str]]:
    """Let a program stand for the work; the commands that it stands for come into the list."""
    popen, commands = subprocess.Popen, list[list[str]]()

    def started(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        commands.append(command)
        return popen([sys.executable, "-c", program], **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    return commands


def test_it_ends_when_it_is_stopped_or_late(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, "import threading; print('{\"done\": 1}', flush=True); threading.Event().wait()")
    stop = threading.Event()
    with pytest.raises(UserError, match="it was stopped"):
        run_clip_job({}, lambda _: stop.set(), stop, 600)
    with pytest.raises(UserError, match="it took longer than 0.5 s, the most that this server spends on a clip"):
        run_clip_job({}, lambda _: None, threading.Event(), 0.5)


def test_one_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(
        monkeypatch, "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    )
    warned: list[str] = []
    monkeypatch.setattr(log, "warning", warned.append)
    with pytest.raises(UserError, match=r"its process died \(exit code -9\)"):
        run_clip_job({}, lambda _: None, threading.Event(), 600)
    assert warned == ["a clip's process ended with -9: last words\n"]


def test_no_other_user_of_the_machine_reads_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """They can read a process's arguments; the program answers with the task that came to it."""
    commands = run_instead(monkeypatch, "import sys; print(sys.stdin.readline(), end='')")
    task = {"kind": "upscale", "tracking_uri": "http://anne:secret@mlflow"}
    assert run(task) == task
    assert len(commands) == 1
    assert "secret" not in " ".join(commands[0])


def test_an_error_alone_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, 'print(\'{"error": "why"}\')')
    said: list[dict[str, Any]] = []
    with pytest.raises(UserError, match="^why$"):
        run_clip_job({}, said.append, threading.Event(), 600)
    assert said == []


def test_a_model_that_is_gone_gets_the_commands_line_without_its_path(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with PageService(ServeOptions(page=True), {"shown": gone}, {"device": "cpu", "precision": "fp32"}) as service:
        clip = service.create(ANNE, "", sample=True)
        service.start(clip, "shown", 0, 2)
        service.work_one()
        state = service.state(clip)
    with pytest.raises(UserError) as expected:
        check_model_folder(gone)
    assert (state["state"], state["error"]) == ("failed", str(expected.value).replace(gone, "shown"))


def test_it_ends_with_the_server(tmp_path: Path) -> None:
    """The server's end closes its stdin; the clip is a pipe that nobody writes to, so that it would wait for ever."""
    os.mkfifo(tmp_path / "clip.mp4")
    command = [sys.executable, "-m", "mana_dist.serve.web_page.clip_job"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(look(tmp_path / "clip.mp4")).encode() + b"\n")
        process.stdin.close()
        assert process.wait(60) == 1
