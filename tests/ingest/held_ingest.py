"""The ingest's command line, held: ``python -m tests.ingest.held_ingest FOLDER COUNT <its arguments>``.

Only COUNT of its units are worked on; those that come later wait until they are killed, so it never ends by itself,
however late it is killed. FOLDER gets a file for every unit that begins.
"""

import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from mana_dist.child_task import Step, Task
from mana_dist.errors import run_command
from mana_dist.ingest import unit_tasks
from mana_dist.ingest.__main__ import main
from mana_dist.ingest.units import UnitResult
from mana_dist.ray_tasks import map_on_ray


def held(item: str, step: Step, task: Task, folder: Path, count: int) -> str:
    for number in itertools.count():
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:
            continue
        while number >= count:
            time.sleep(1)
        break
    return task(item, step)


def main_held(folder: Path, count: int) -> None:
    """Hold the units; what plans them is not held."""
    units_run = unit_tasks.run

    def on_ray(items: Sequence[str], task: Task, name: Callable[[str], str]) -> Iterator[str]:
        return map_on_ray(items, functools.partial(held, task=task, folder=folder, count=count), name)

    def run(*arguments: Any) -> Iterator[UnitResult]:
        with mock.patch.object(unit_tasks, "map_on_ray", on_ray):
            yield from units_run(*arguments)

    with mock.patch.object(unit_tasks, "run", run):
        run_command(main)


if __name__ == "__main__":
    main_held(Path(sys.argv.pop(1)), int(sys.argv.pop(1)))
