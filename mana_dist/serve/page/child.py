"""One piece of work on a clip in a process of its own, as the server sees it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from mana_dist.console import log
from mana_dist.errors import UserError

Report = Callable[[dict[str, Any]], None]


def run_child(task: dict[str, Any], report: Report, stop: threading.Event, seconds: float) -> None:
    """Do a task of :mod:`mana_dist.serve.page.job_process`.

    Args:
        task: as that module takes it.
        report: called with what each of its lines says.
        stop: ends it when set.
        seconds: that it may take.

    Raises:
        UserError: as the command's; or it took too long, or died.
    """
    command = [sys.executable, "-m", "mana_dist.serve.page.job_process", json.dumps(task)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    error, late, ended = "", threading.Event(), threading.Event()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        output, errors = process.stdout, process.stderr
        assert output is not None
        assert errors is not None
        spoken: list[bytes] = []
        listener = threading.Thread(target=lambda: spoken.extend(errors), daemon=True)
        listener.start()

        def watch() -> None:
            if not stop.wait(seconds):
                late.set()
            if not ended.is_set():
                process.kill()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        for line in output:
            values = json.loads(line)
            error = values.pop("error", "") or error
            report(values)
        listener.join()
        process.wait()
        ended.set()
    was_stopped = stop.is_set()
    stop.set()
    if error:
        raise UserError(error)
    if late.is_set():
        raise UserError(
            f"it took longer than {seconds:g} s, the most that this server spends on a clip; take fewer frames"
        )
    if was_stopped:
        raise UserError("it was stopped")
    if process.returncode:
        log.warning(
            "a clip's process ended with %d: %s", process.returncode, b"".join(spoken[-20:]).decode(errors="replace")
        )
        raise UserError(f"its process died (exit code {process.returncode}); a smaller clip may need less memory")
