"""Commands with a limit of time."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def ended(command: list[str], seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """Run a command for at most ``seconds``; returns why it did not come to its end, empty if it did.

    When the time is up, the processes that it has started end with it.
    """
    with tempfile.TemporaryFile() as errors:  # a pipe would stay open while a process of the command's lives
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {seconds:.0f} s"
        finally:
            if process.poll() is None:  # also where this process is interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    return f"exit code {code}: " + " ".join(said.split())[-500:] if code else ""
