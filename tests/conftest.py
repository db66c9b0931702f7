"""For all tests."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from mana_dist.errors import run_command

# Else torch's threads, of several processes on a few cores, spend most of the time in busy waiting for each other.
# Before torch is imported, which reads it then; what the tests start inherits it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_configure() -> None:
    """What a shell starts in the background ignores SIGINT, and so would each command that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: two processes that share them out then end at about the same time."""
    long = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -long[item.path])


def pytest_collection_finish() -> None:
    """What all libraries hold is looked through no more by the garbage collection that some tests call for."""
    gc.freeze()


RunHere = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunHere:
    """Run a command line's main in this process: what a process of its own leaves, without seconds of imports."""

    def run(main: Callable[[list[str]], None], *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        given = list(map(str, arguments))
        monkeypatch.setattr("sys.argv", ["command", *given])
        capfd.readouterr()
        code = 0
        try:
            run_command(main)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(given, code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with the inputs that ``$MANA_TEST_CASES/make.sh`` makes, once for all test processes; read them only."""
    script = Path(os.environ.get("MANA_TEST_CASES", "")) / "make.sh"
    if not script.is_file():
        pytest.skip("MANA_TEST_CASES names no folder with make.sh")
    missing = [tool for tool in ("ffmpeg", "ffprobe", "mkvmerge") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "cases"
    with FileLock(f"{folder}.lock"):
        if not (folder / ".whole").exists():
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # make.sh calls a python with PyAV
            subprocess.run(["bash", str(script), str(folder)], env={**os.environ, "PATH": path}, check=True)
            (folder / ".whole").touch()
    return folder
