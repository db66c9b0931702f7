"""Times and memory of a call, the same way for all benchmarks: synchronised, warmed up, medians. Torch alone."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Several timings of one call.

    Attributes:
        seconds: the median.
        spread: (slowest - fastest) / median.
    """

    seconds: float
    spread: float


def timed(
    call: Callable[[], object], device: str, least_runs: int = 5, budget: float = 4.0, warm_up: int = 2
) -> Timing:
    """Time ``call`` at least ``least_runs`` times and for about ``budget`` seconds, after ``warm_up`` runs."""
    for _ in range(warm_up):
        call()
    seconds: list[float] = []
    while len(seconds) < least_runs or (sum(seconds) < budget and len(seconds) < 200):
        _synchronise(device)
        start = time.perf_counter()
        call()
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return Timing(median, (max(seconds) - min(seconds)) / median)


def peak_extra_bytes(make: Callable[[str], Callable[[], object]], device: str) -> int:
    """Memory that the call which ``make(device)`` prepares takes beyond its inputs, outputs included.

    On a GPU by torch's allocator; on a CPU by the peak of the resident memory of a process of its own.
    """
    if device == "cuda":
        call = make(device)
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak_in_process, args=(make, sender))
    process.start()
    extra: int = receiver.recv()
    process.join()
    return extra


def _peak_in_process(make: Callable[[str], Callable[[], object]], sender: Connection) -> None:
    call = make("cpu")
    make("cpu")()  # threads, caches and code that only the first call needs
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    before = _resident("VmRSS")
    call()
    sender.send(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    """Of this process, bytes: now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
