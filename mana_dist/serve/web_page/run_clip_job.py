"""One piece of work on a clip in a process of its own, as the server sees it.

The two speak JSON, unlike :mod:`mana_dist.child_task`, whose answers are pickles: a stranger's clip that breaks into
the decoder must not get from there into the server.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mana_dist.child_task import start_child
from mana_dist.console import log
from mana_dist.errors import UserError

_SPOKEN = 4000  # characters of what a process that died wrote at last that go to the log
Report = Callable[[dict[str, Any]], None]


def run_clip_job(task: dict[str, Any], report: Report, stop: threading.Event, seconds: float) -> None:
    """Do a task of :mod:`mana_dist.serve.web_page.clip_job`.

    Args:
        task: as that module takes it.
        report: called with what each of its lines says.
        stop: ends it when set.
        seconds: that it may take.

    Raises:
        UserError: as the command's; or it took too long, or died.
    """
    error, late, ended = "", threading.Event(), threading.Event()
    with (
        tempfile.TemporaryFile() as errors,
        start_child("mana_dist.serve.web_page.clip_job", errors) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def watch() -> None:
            if not stop.wait(seconds):
                late.set()
            if not ended.is_set():
                process.kill()

        threading.Thread(target=watch, daemon=True).start()
        try:
            with suppress(BrokenPipeError):  # it died already
                # Not as an argument: any user of the machine may read those, and a registry's URI can hold a password.
                os.write(process.stdin.fileno(), json.dumps(task).encode() + b"\n")
            for line in process.stdout:
                values = json.loads(line)
                error = values.pop("error", "") or error
                if values:
                    report(values)
            process.wait()
        finally:
            was_stopped = stop.is_set()
            ended.set()
            process.kill()
            stop.set()
        errors.seek(0)
        spoken = errors.read()[-_SPOKEN:].decode(errors="replace")
    if error:
        raise UserError(error)
    if late.is_set():
        raise UserError(
            f"it took longer than {seconds:g} s, the most that this server spends on a clip; take fewer frames"
        )
    if was_stopped:
        raise UserError("it was stopped")
    if process.returncode:
        log.warning(f"a clip's process ended with {process.returncode}: {spoken}")
        raise UserError(f"its process died (exit code {process.returncode}); a smaller clip may need less memory")
