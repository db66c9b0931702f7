"""A task in a process of its own: result, steps, errors, death, and that it never outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mana_dist import ray_tasks
from mana_dist.child_task import Step, run_in_child
from mana_dist.errors import UserError
from mana_dist.ray_tasks import map_on_ray
from tests.test_ray_tasks import try_to


def work(item: str, step: Step) -> str:
    """Say something on both outputs, take three steps, and do as the item says."""
    print("stray words")
    os.write(1, b"more of them")
    for _ in range(3):
        step()
    if item == "mistake":
        raise UserError("in.mp4: no video")
    if item == "odd":
        raise ValueError(lambda: None)
    return f"{item} by {os.environ['OMP_NUM_THREADS']} in {os.getpid() != int(os.environ['PARENT'])}"


@pytest.fixture(autouse=True)
def parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARENT", str(os.getpid()))


def test_the_result_and_every_step_come_back_and_nothing_else() -> None:
    steps: list[None] = []
    assert run_in_child(work, "a", 3, lambda: steps.append(None)) == "a by 3 in True"
    assert len(steps) == 3


def test_what_the_task_raises_is_raised() -> None:
    with pytest.raises(UserError, match=r"in\.mp4: no video"):
        run_in_child(work, "mistake", 1, lambda: None)
    with pytest.raises(RuntimeError, match="ValueError"):  # what cannot be sent is named
        run_in_child(work, "odd", 1, lambda: None)


@pytest.mark.parametrize("how", ["kill", "exit-1", "exit-0"])
def test_a_process_that_dies_has_no_result_and_is_tried_as_often_as_on_ray(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_tasks, "_has_ray", lambda: False)
    assert list(map_on_ray([f"{how} {tmp_path / 'tries'}"], try_to, str)) == []
    assert (tmp_path / "tries").read_text().split() == 3 * [how]


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed or not; else it would write on into a folder that another attempt has by then."""
    program = (
        "from mana_dist.child_task import run_in_child; from tests.test_child_task import stay\n"
        f"run_in_child(stay, {str(tmp_path / 'number')!r}, 1, lambda: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        until((tmp_path / "number").exists)
        child = int((tmp_path / "number").read_text())
        assert is_running(child)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not is_running(child))


def is_running(process: int) -> bool:
    """Whether it is there, and no zombie that nobody has asked for its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stay(item: str, _: Step) -> str:
    Path(f"{item}.part").write_text(str(os.getpid()))
    os.replace(f"{item}.part", item)
    time.sleep(600)
    return "never ended"


def until(done) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
