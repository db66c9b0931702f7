"""For all tests."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock


def pytest_configure() -> None:
    """What a shell starts in the background ignores SIGINT, and so would each command that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
