"""The processes of a local stack, recognised by a variable in their environment, so that none is ever lost.

No process id is written down: one that is read later may be somebody else's. Every process that a stack starts, and all
that those start, inherit MANA_LOCAL_STACK with the stack's folder. Ray's and PostgreSQL's write their titles over their
environment: of those that have none, the stack's are the ones that work in its folder.
"""

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_MARK = "MANA_LOCAL_STACK"
_SIGNAL = "MANA_LOCAL_STOP"


def start(
    command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path, stop: signal.Signals
) -> psutil.Process:
    """Start a server of the stack in ``folder``, which outlives this process.

    Args:
        command: program and arguments.
        environment: all of its environment.
        log: its output goes to this file's end.
        folder: the stack's, and its working folder.
        stop: what ends it in good order.
    """
    marks = {_MARK: str(folder), _SIGNAL: str(int(stop))}
    with log.open("ab") as output:
        started = subprocess.Popen(
            list(command),
            env={**environment, **marks},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return psutil.Process(started.pid)


def of_stack(folder: Path) -> list[psutil.Process]:
    """All running processes of the stack in ``folder``."""
    return [process for process in psutil.process_iter() if _belongs(process, folder) and is_running(process)]


def stop(folder: Path, seconds: float = 20.0) -> int:
    """End all processes of the stack in ``folder``: in good order within ``seconds``, else by force.

    Returns:
        How many there were.
    """
    processes = of_stack(folder)
    ids = {process.pid for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in ids:  # a server itself, which stops its own children
                process.send_signal(_stop_signal(process))
    psutil.wait_procs(processes, timeout=seconds)
    deadline = time.monotonic() + 30
    while remaining := of_stack(folder) or [process for process in processes if is_running(process)]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes that cannot be ended: {[process.pid for process in remaining]}")
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(remaining, timeout=1)
    return len(processes)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        environment = process.environ()
        return environment.get(_MARK) == str(folder) or (not environment and Path(process.cwd()).is_relative_to(folder))
    except (psutil.Error, OSError):  # gone, or somebody else's
        return False


def _stop_signal(process: psutil.Process) -> int:
    return int(process.environ().get(_SIGNAL, signal.SIGTERM))


def is_running(process: psutil.Process) -> bool:
    """Return whether a process has not ended; one that nobody has waited for yet has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
