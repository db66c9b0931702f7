"""Calls that take turns, each in a process of its own: whatever else the machine does slows all of them down."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection

from mana_dist.allocator import keep_freed_memory


@dataclass(frozen=True)
class Way:
    """One way to do something.

    Attributes:
        make: prepares the call, in its process.
        keeps_memory: whether that process keeps freed memory, as ours do; others do not.
    """

    make: Callable[[], Callable[[], object]]
    keeps_memory: bool = True


def in_turns(ways: Mapping[str, Way], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Return the median seconds of each way's call, after ``warm_up`` calls that do not count."""
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        pipes: dict[str, Connection] = {}
        for name, way in ways.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(way, theirs), daemon=True)
            process.start()
            theirs.close()  # so that what waits for a process that has died raises EOFError
            stack.callback(process.join)
            pipes[name] = stack.enter_context(ours)
        for number in range(warm_up + rounds):
            for name, pipe in pipes.items():
                try:
                    pipe.send(None)
                    taken = pipe.recv()
                except (EOFError, OSError) as error:  # its own message is on stderr
                    raise RuntimeError(f"{name}: its process has died") from error
                if number >= warm_up:
                    seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _serve(way: Way, pipe: Connection) -> None:
    if way.keeps_memory:
        keep_freed_memory()
    call = way.make()
    while True:
        try:
            pipe.recv()
        except EOFError:  # the other end is closed: no more turns
            return
        begun = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - begun)
