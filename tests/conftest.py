"""For all tests."""

import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from mana_dist import console
from mana_dist.errors import run_command

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Else torch's threads, of several processes on a few cores, spend most of the time in busy waiting for each other.
# Before torch is imported, which reads it then; what the tests start inherits it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


LONG = (
    *("benchmarks", "cluster", "evaluate", "export", "ingest", "k8s", "ops", "s3", "serve", "stack", "upscale"),
    *("video", "data/test_recipe.py", "registry/test_pyfunc.py", "sweep/test_sweep.py", "sweep/test_tuning.py"),
    *("test_api.py", "test_install.py", "test_memory_growth.py", "test_ray_runtime.py", "test_ray_tasks.py"),
    *("train/elastic/test_consensus.py", "train/elastic/test_elastic.py", "train/elastic/test_faults.py"),
    *("train/test_averaging.py", "train/test_engine.py", "train/test_exactness.py", "train/test_ray_job.py"),
    *("train/test_train.py", "train/test_variants.py", "train/tracking/test_outage.py"),
    *("train/tracking/test_tracking_server.py", "train/test_ray_fit.py", "train/test_validate_candidate.py"),
    *("train/planning/test_run_plan.py", "registry/test_versions.py", "registry/test_tracking_uri.py"),
    *("model/test_graphs.py", "sweep/test_candidate_scores.py", "test_cases.py"),
)
"""Folders and files of which much starts Ray, servers, browsers, encoders or trainings, or else takes seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that take no time, as `make check` does")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what is long: that alone would take half of the time."""
    below = Path(__file__).parent
    is_long = any(collection_path == below / name for name in LONG)
    return True if is_long and config.getoption("--quick") else None


def pytest_configure(config: pytest.Config) -> None:
    """Show what commands say, as their own processes do.

    And a shell's background jobs ignore SIGINT, and so would each command that a test interrupts.
    """
    console.show()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.option.loadscopereorder = False  # xdist's order, files of many tests first, is not that of their lengths


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files first, so that two processes that share them out end at about the same time."""
    seconds: dict[Path, float] = defaultdict(float)
    for item in items:
        for name, usual in {"cluster": 60, "slow": 15}.items():
            if mark := item.get_closest_marker(name):
                seconds[item.path] += mark.kwargs.get("seconds", usual)
                break
    items.sort(key=lambda item: -seconds[item.path])
    if config.getoption("--quick"):
        items[:] = [item for item in items if not any(map(item.get_closest_marker, ("slow", "cluster")))]


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


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A real one, where there is one."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()
