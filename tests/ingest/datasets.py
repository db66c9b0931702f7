"""Helpers of the ingest's tests: its command without Ray, and what lies in a folder."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mana_dist.child_task import Task
from mana_dist.data.config import SampleSettings
from mana_dist.footage.expand import Clip, expand
from mana_dist.ingest import sources_table, unit_tasks
from mana_dist.ingest.run_unit import run_unit
from mana_dist.ingest.sources_table import SourceRow
from mana_dist.ingest.units import Unit, UnitResult


def clip_at(path: Path, *, start: int = 0, stop: int | None = None, downscale: int = 1) -> Clip:
    """The one clip that ``path`` is."""
    (clip,), *_ = expand([str(path)], start=start, stop=stop, downscale=downscale)
    return clip


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the ingest's tasks in this process, last one first: results may come in any order."""

    def in_this_process(items: Sequence[str], task: Task, name: Callable[[str], str]) -> Iterator[str]:
        for item in reversed(items):
            assert name(item)
            yield task(item, lambda: None)

    monkeypatch.setattr(unit_tasks, "map_on_ray", in_this_process)


def run(unit: Unit, out: Path, settings: SampleSettings) -> UnitResult:
    """One task."""
    return run_unit(unit, str(out), settings)


def rows(out: Path) -> list[SourceRow]:
    """The dataset's table of sources."""
    (table,) = out.glob("sources-*.parquet")
    return sources_table.read(str(out), table.name)


def tree(folder: Path) -> dict[str, bytes]:
    """All files in a folder, by their relative paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def command(*arguments: str | Path) -> list[str]:
    """The ingest's command line."""
    return [sys.executable, "-m", "pipelines.ingest", *map(str, arguments)]


def run_command_line(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as users call it."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=600)
