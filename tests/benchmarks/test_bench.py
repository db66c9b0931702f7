"""``make bench``: one table whatever fails, within the time; calls that take turns."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks.processes import ended
from benchmarks.report import PartResult, Row
from benchmarks.turns import Way, in_turns


def works(small: bool) -> Iterator[Row]:
    yield Row("a small thing" if small else "a large thing", 2.0, "ms", 3.0, "the other")


def breaks(small: bool) -> Iterator[Row]:
    yield Row("before", 1.0, "s")
    raise RuntimeError("out of order")


def hangs(small: bool) -> Iterator[Row]:
    yield Row("begun", 1.0, "s")
    time.sleep(600)


def test_a_part_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = {function.__name__: bench.Part(f"{__name__}:{function.__name__}", 300) for function in (breaks, works)}
    monkeypatch.setattr(bench, "PARTS", parts)
    out = tmp_path / "bench.md"
    assert bench.main(["--small", "--out", str(out)]) == 1
    page = out.read_text()
    assert page in capfd.readouterr().out
    failed = next(line for line in page.splitlines() if line.startswith("* **failed**"))
    assert failed.startswith("* **failed**, breaks: exit code 1")
    assert failed.endswith("RuntimeError: out of order")
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert table[2:] == ["| breaks | before | 1 s |  |", "| works | a small thing | 2 ms | 3.00x the other |"]


def test_where_all_parts_end_the_exit_code_is_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PARTS", {"works": bench.Part(f"{__name__}:works", 300)})
    out = tmp_path / "bench.md"
    assert bench.main(["--out", str(out)]) == 0
    assert "| works | a large thing | 2 ms | 3.00x the other |" in out.read_text()
    assert "failed" not in out.read_text()
    heading = out.read_text().splitlines()[0]
    assert f"{os.cpu_count()} cores" in heading
    assert f"torch {version('torch')}" in heading
    assert time.strftime("%Y-%m") in heading


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PARTS", {name: bench.Part(f"{__name__}:{name}", 1) for name in ("hangs", "works")})
    out = tmp_path / "bench.md"
    assert bench.main(["--out", str(out), "--seconds", "0"]) == 1
    assert "* **failed**, hangs: left out: no time left" in out.read_text()


def test_a_part_gets_what_those_before_it_left_over_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, given = [1000.0], []

    def contained(name: str, seconds: float, *, small: bool) -> PartResult:
        given.append(seconds)
        now[0] += 10.0 if name == "first" else 80.0
        return PartResult(name, 1.0)

    monkeypatch.setattr(bench, "PARTS", {name: bench.Part("", 50) for name in ("first", "second", "third")})
    monkeypatch.setattr(bench, "contained", contained)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert bench.main(["--out", str(tmp_path / "bench.md"), "--seconds", "150"]) == 0
    assert given == [50.0, 90.0, 60.0]


def test_all_limits_together_are_less_than_fifteen_minutes() -> None:
    assert sum(part.seconds for part in bench.PARTS.values()) <= 885


@pytest.mark.parametrize("name", bench.PARTS)
def test_every_part_is_there(name: str) -> None:
    module, _, function = bench.PARTS[name].function.partition(":")
    assert f"def {function}(small: bool) -> Iterator[Row]:" in Path(f"{module.replace('.', '/')}.py").read_text()


def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    child = "import time; time.sleep(100)"
    program = (
        "import subprocess, sys, time, pathlib\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(noted)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    seconds = 1.0
    while not noted.exists():  # a busy machine
        seconds *= 2
        assert ended([sys.executable, "-c", program], seconds) == f"ended after {seconds:.0f} s"
    while is_running(noted.read_text()):  # a hundred seconds, were it left alone: beyond the limit of a test
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False).stdout
    return state != "" and not state.startswith("Z")  # a zombie where nobody waits for orphans


def log_of(path: Path, name: str) -> Callable[[], object]:
    return functools.partial(_note, path, name)


def _note(path: Path, name: str) -> None:
    with path.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


def test_calls_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ways = {name: Way(functools.partial(log_of, log, name), keeps_memory=False) for name in ("a", "b")}
    assert in_turns(ways, rounds=2).keys() == {"a", "b"}
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, _ in lines] == ["a", "b"] * 3
    assert len({pid for _, pid in lines} | {str(os.getpid())}) == 3


def _fail() -> Callable[[], object]:
    raise RuntimeError("no such thing")


def test_a_call_that_dies_ends_the_turns() -> None:
    with pytest.raises(RuntimeError, match="dies: its process has died"):
        in_turns({"dies": Way(_fail, keeps_memory=False)}, rounds=1)
