"""A local stack, started and ended by its command line, in a folder and with a home of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.k8s.manifests import REPOSITORY


class Stack:
    """The command ``python -m cluster.local``, and what must be left of it in the end: nothing.

    Attributes:
        folder: the stack's.
        outside: the user's home and folder for temporary files; nothing may be left there.
    """

    def __init__(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="st-"))  # short: sockets lie below it
        self.folder = self._base / "s"
        self.outside = [self._base / "home", self._base / "tmp"]
        for folder in self.outside:
            folder.mkdir()

    def run(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        foreign = ("RAY_", "MLFLOW_", "AWS_", "XDG_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        home, temporary = self.outside
        return subprocess.run(
            [sys.executable, "-m", "cluster.local", command, "--folder", str(self.folder), *arguments],
            cwd=REPOSITORY,
            env={**kept, "HOME": str(home), "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """What the stack tells its users to put into their environment, as a shell reads it."""
        command = ["bash", "-c", f". {self.folder}/env.sh && env -0"]
        done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True)
        return dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs and has to do with its folder, in whatever way."""
        return [process for process in psutil.process_iter() if self._concerns(process)]

    def remove(self) -> None:
        """Whatever a failed test has left."""
        if (self.folder / "stack.json").exists():
            self.run("down", "--delete")
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self._base)

    def _concerns(self, process: psutil.Process) -> bool:
        try:
            told = [*process.cmdline(), *process.environ().values(), process.cwd()]
            told += [file.path for file in process.open_files()]
        except (psutil.Error, OSError):
            return False
        # The tests' own processes know the folder that it lies in, but not this one.
        return process.pid != os.getpid() and any(f"{self.folder}" in text for text in told)
