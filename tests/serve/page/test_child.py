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
from mana_dist.serve.page import sample_clip
from mana_dist.serve.page.child import run_child
from mana_dist.upscale.config import Settings
from mana_dist.upscale.sources import survey_of
from mana_dist.video.reading import read_frames
from tests.train.trainings import environment


def look(source: Path, **changes: Any) -> dict[str, Any]:
    poster = str(source.with_name("poster.png"))
    return {"kind": "look", "source": str(source), "poster": poster, "pixels": 10**6, "sample": False} | changes


def run(task: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
    said: dict[str, Any] = {}
    run_child(task, said.update, threading.Event(), seconds)
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


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    popen = subprocess.Popen
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: popen(command, **options))


def test_it_ends_when_it_is_stopped_or_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that would run for ever stands for the work."""
    forever = 'import threading; print("{}", flush=True); threading.Event().wait()'
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: popen([sys.executable, "-c", forever], **options)
    )
    stop = threading.Event()
    with pytest.raises(UserError, match="it was stopped"):
        run_child({}, lambda _: stop.set(), stop, 600)
    with pytest.raises(UserError, match="it took longer than 0.5 s, the most that this server spends on a clip"):
        run_child({}, lambda _: None, threading.Event(), 0.5)


def test_one_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen
    program = "import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: popen([sys.executable, "-c", program], **options)
    )
    warned: list[str] = []
    monkeypatch.setattr(log, "warning", warned.append)
    with pytest.raises(UserError, match=r"its process died \(exit code -9\)"):
        run_child({}, lambda _: None, threading.Event(), 600)
    assert warned == ["a clip's process ended with -9: last words\n"]


def test_it_ends_with_the_server(tmp_path: Path) -> None:
    """The server's end closes its stdin; the clip is a pipe that nobody writes to, so that it would wait for ever."""
    os.mkfifo(tmp_path / "clip.mp4")
    command = [sys.executable, "-m", "mana_dist.serve.page.job_process", json.dumps(look(tmp_path / "clip.mp4"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 1
