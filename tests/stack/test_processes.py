"""Processes are found and ended however they hide, and nobody else's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mana_dist.stack import processes

# A server with a child in a session of its own that does not listen to SIGTERM; they tell when they are ready.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    open(sys.argv[1], "w").close()
time.sleep(600)
"""
GENTLE = """
import signal, sys, time
def leave(*_):
    open(sys.argv[1] + ".left", "w").close()
    sys.exit()
signal.signal(signal.SIGINT, leave)
open(sys.argv[1], "w").close()
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "s").mkdir()
    yield tmp_path / "s"
    processes.stop(tmp_path / "s", seconds=0)


def start(program: str, folder: Path) -> psutil.Process:
    command = [sys.executable, "-c", program, str(folder / "ready")]
    process = processes.start(command, os.environ, folder / "log", folder, signal.SIGINT)
    deadline = time.monotonic() + 60
    while not (folder / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_process_that_left_its_family_and_does_not_listen_is_ended(folder: Path) -> None:
    start(STUBBORN, folder)
    found = processes.of_stack(folder)
    assert len(found) == 2
    assert len({os.getsid(process.pid) for process in found}) == 2
    assert processes.stop(folder, seconds=0.5) == 2
    assert not [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert processes.of_stack(folder) == []


def test_a_server_is_ended_with_its_own_signal(folder: Path) -> None:
    begun = time.monotonic()
    start(GENTLE, folder)
    processes.stop(folder, seconds=60)
    assert (folder / "ready.left").exists()
    assert time.monotonic() - begun < 30


def test_another_stacks_processes_are_left_alone(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "s2"
    other.mkdir()
    theirs = start(GENTLE, other)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=folder) as mine:
        start(GENTLE, folder)
        assert processes.stop(folder) == 1
        assert theirs.is_running()
        assert mine.poll() is None
        mine.kill()
    assert processes.stop(other) == 1


def test_a_process_whose_title_covers_its_environment_is_found_by_its_folder(folder: Path) -> None:
    """Ray's and PostgreSQL's do so; a user's shell in the folder has an environment, and stays."""
    bare = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        subprocess.Popen(bare, cwd=folder, env={}) as theirs,
        subprocess.Popen(bare, cwd=folder) as shell,
        subprocess.Popen(bare, cwd=folder.parent, env={}) as beside,
    ):
        assert [process.pid for process in processes.of_stack(folder)] == [theirs.pid]
        assert processes.stop(folder) == 1
        assert [other.poll() for other in (shell, beside)] == [None, None]
        shell.kill()
        beside.kill()
