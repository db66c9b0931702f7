"""Tasks on a real Ray: none is given up for being slow, none that leaves its process is waited for for ever."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from mana_dist import ray_runtime, ray_tasks
from mana_dist.child_task import Step
from mana_dist.ray_tasks import map_on_ray, waiting_line


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray_runtime.start_ray(2)
    import ray

    yield
    ray.shutdown()


def try_to(item: str, step: Step) -> str:
    """Write the try down, and leave the process if the item says so."""
    del step
    how, _, file = item.partition(" ")
    with open(file, "a", encoding="utf-8") as tries:
        tries.write(f"{how}\n")
    if Path(file).read_text().split().count(how) > 5:
        return f"{how} never given up"
    if how == "exit-0":
        sys.exit(0)
    if how == "exit-1":
        sys.exit(1)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{how} done"


@pytest.mark.slow
def test_a_process_that_leaves_is_tried_again_and_then_given_up(cluster: None, tmp_path: Path) -> None:
    names = ("a", "exit-0", "exit-1", "kill", "b")
    items = [f"{name} {tmp_path / 'tries'}" for name in names]
    found = list(map_on_ray(items, try_to, str, at_once=2))
    assert sorted(found) == ["a done", "b done"]
    tries = Counter((tmp_path / "tries").read_text().split())
    assert tries == {"a": 1, "b": 1, "exit-0": 3, "exit-1": 3, "kill": 3}


def wait_for(item: str, step: Step) -> str:
    """Be at work until the file is there, and no longer than anybody can wait."""
    step()
    deadline = time.monotonic() + 120
    while not Path(item).exists():
        if time.monotonic() > deadline:
            return "never named"
        time.sleep(0.05)
    return "slow"


@pytest.mark.slow
def test_a_slow_task_outlives_ray_datas_limit_and_is_named(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.data

    item, said = tmp_path / "go on", []

    def go_on(silent: float, left: dict[int, str], reports: dict[int, tuple[int | None, float]]) -> str:
        if reports:  # it is at work, and has been silent for longer than Ray Data would wait
            item.touch()
        said.append((left, silent))
        return "waiting"

    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 0.5)
    monkeypatch.setattr(ray_tasks, "_SILENCE", 2.0)
    monkeypatch.setattr(ray_tasks, "waiting_line", go_on)
    assert list(map_on_ray([str(item)], wait_for, lambda _: "film.mp4")) == ["slow"]
    assert all(left == {0: "film.mp4"} and silent >= 2 for left, silent in said)


def test_the_line_says_what_is_at_work_and_what_waits() -> None:
    left = {number: f"film.mp4 segment {number + 1}/9" for number in range(9)}
    assert waiting_line(60, left, {}) == "nothing finished for 1:00: none has begun; 9 wait for room on the cluster"
    told = waiting_line(125.4, left, {0: (17, 3.2), 3: (0, 124.6), 10: (5, 1.0)})
    assert told == (
        "nothing finished for 2:05: at work on film.mp4 segment 1/9 (17 frames done, last sign 0:03 ago), film.mp4 "
        "segment 4/9 (last sign 2:05 ago); 7 wait for room on the cluster"
    )
    assert waiting_line(60, left, dict.fromkeys(left, (1, 1.0))).endswith(
        "segment 4/9 (1 frame done, last sign 0:01 ago), 5 more"
    )


def test_what_is_done_is_neither_at_work_nor_does_it_wait() -> None:
    """Ray Data hands results on when it comes to it; until then their tasks are left."""
    left = {0: "a", 1: "b", 2: "c"}
    told = waiting_line(60, left, {0: (None, 50.0), 1: (3, 1.0)})
    assert told == (
        "nothing finished for 1:00: at work on b (3 frames done, last sign 0:01 ago); 1 wait for room on the cluster"
    )
    assert waiting_line(60, {0: "a"}, {0: (None, 50.0)}) == (
        "nothing finished for 1:00: the results of all that began are on their way"
    )


def test_a_task_says_that_it_is_done() -> None:
    class Progress:
        said: ClassVar[list[tuple[int, int | None]]] = []

        class report:  # noqa: N801  (in the place of an actor's method)
            @staticmethod
            def remote(number: int, frames: int | None) -> None:
                Progress.said.append((number, frames))

    assert ray_tasks._run({"number": 4, "item": "a"}, lambda item, _: item * 2, Progress) == {"number": 4, "item": "aa"}
    assert Progress.said == [(4, 0), (4, None)]


def test_a_single_item_needs_no_ray(tmp_path: Path) -> None:
    program = (
        "import sys; from tests.test_ray_tasks import try_to; from mana_dist.ray_tasks import map_on_ray\n"
        f"print(list(map_on_ray(['a {tmp_path / 'tries'}'], try_to, str)))\n"
        "ray = sys.modules.get('ray'); print(ray is not None and ray.is_initialized())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['a done']", "False"]
