"""The project's command lines in processes of their own, watched while they run."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Line:
    """A line on a command's standard output, and when it came (monotonic clock, seconds)."""

    time: float
    text: str


class Command:
    """``python -m <arguments>``, running; as a context manager it is killed at the end if it still runs."""

    def __init__(self, *arguments: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.lines: list[Line] = []
        self._errors = open(folder / "stderr.txt", "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        self._errors.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(Line(time.monotonic(), text.rstrip("\n")))

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return "".join(line.text + "\n" for line in self.lines)

    def told(self) -> str:
        """Everything that it printed, for a failing test's message."""
        self._errors.flush()
        self._errors.seek(0)
        return f"{self.output}{self._errors.read()}"

    def wait_for(self, pattern: str, seconds: float = 240) -> re.Match[str]:
        """The first match of ``pattern`` in its output, once it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = not self.running
            if match := re.search(pattern, self.output):
                return match
            assert not ended, f"ended without {pattern!r}:\n{self.told()}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in {seconds} s:\n{self.told()}")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def succeed(self, seconds: float = 200) -> str:
        """Wait for its end, which must be a good one; gives its standard output."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {seconds} s:\n{self.told()}") from error
        self._reader.join(5)
        assert self.process.returncode == 0, self.told()
        return self.output

    def lines_between(self, begin: float, end: float) -> list[str]:
        """What it printed between two times of the monotonic clock."""
        return [line.text for line in self.lines if begin < line.time < end]


def refusal(*arguments: str, folder: Path, environment: Mapping[str, str], seconds: float = 120) -> str:
    """The one line with which ``python -m <arguments>`` refuses, leaving with exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr.strip()
