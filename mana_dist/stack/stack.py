"""A whole local stack: up, down, and how it is."""

import shutil
import time
from pathlib import Path

from mana_dist.errors import UserError
from mana_dist.stack import processes
from mana_dist.stack import stack_layout as layouts
from mana_dist.stack.services import Service, base_environment, services
from mana_dist.stack.stack_layout import Layout

_START = 180.0  # seconds for a server to answer; imports are slow on a loaded machine
_SLOW = 30.0  # seconds for servers that run: a loaded machine may keep one from answering
_TRANSIENT = ("ray", "tmp")


def up(folder: Path, cpus: int) -> Layout:
    """Start the stack in ``folder``, with the data of the time before, and wait until all of it answers.

    Of one that runs, only servers that are missing are started: jobs may be at work on the others.

    Args:
        folder: of the stack; made if it is not there.
        cpus: logical CPUs of its Ray head.

    Raises:
        UserError: a server is not installed or does not start, then none is left running but those that ran before;
            or another call is at work on the stack.
    """
    with layouts.locked(folder):
        if layouts.exists(folder) and processes.of_stack(folder):
            return _complete(layouts.load(folder), cpus)
        layout = layouts.prepare(folder)
        try:
            for service in services(layout, cpus):
                _start(service, layout)
        except BaseException:
            processes.stop(folder)
            _clean(folder)
            raise
        return layout


def down(folder: Path, delete: bool) -> int:
    """End the stack in ``folder``; its data stay unless they are to be deleted too.

    Args:
        folder: of the stack.
        delete: remove the folder with all that is in it.

    Returns:
        How many processes were ended.

    Raises:
        UserError: there is no stack, it is another user's, or another call is at work on it.
    """
    layout = layouts.load(folder)
    with layouts.locked(folder):
        count = processes.stop(folder)
        if left := [service.name for service in services(layout, cpus=1) if service.is_ready()]:
            raise UserError(f"{', '.join(left)} of {folder} cannot be ended by you; run this as who started it")
        _clean(folder)
        if delete:
            shutil.rmtree(folder)
    return count


def status(folder: Path) -> list[tuple[str, str, bool]]:
    """Return name and address of each server of the stack in ``folder``, and whether it answers.

    Raises:
        UserError: there is no stack, or it is another user's.
    """
    layout = layouts.load(folder)
    running = bool(processes.of_stack(folder))
    ports = {"seaweedfs": "s3", "ray": "dashboard"}  # a server's port of the same name, but for these
    return [
        (service.name, layout.address(ports.get(service.name, service.name)), running and service.is_ready())
        for service in services(layout, cpus=1)
    ]


def _complete(layout: Layout, cpus: int) -> Layout:
    """Start what is missing of a stack that runs, and leave the rest alone."""
    all_of_it = services(layout, cpus)
    deadline = time.monotonic() + _SLOW
    while missing := [service for service in all_of_it if not service.is_ready()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    try:
        for service in all_of_it:
            if service in missing:
                _start(service, layout)
            else:
                service.finish()  # the call that started it may have been cut off before
    except UserError as error:
        raise UserError(f"{error}; the other servers still run, `down` and then `up` starts all anew") from error
    return layout


def _start(service: Service, layout: Layout) -> None:
    log = layout.folder / "logs" / f"{service.name}.log"
    service.prepare()
    environment = {**base_environment(layout), **service.environment}
    process = processes.start(service.command, environment, log, layout.folder, service.stop)
    deadline = time.monotonic() + _START
    while not service.is_ready():
        if not processes.is_running(process) or time.monotonic() > deadline:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{service.name} does not start: {''.join(last)} (all of it: {log})")
        time.sleep(0.2)
    service.finish()


def _clean(folder: Path) -> None:
    """Remove what is of no use to the next start."""
    for name in _TRANSIENT:
        shutil.rmtree(folder / name, ignore_errors=True)
