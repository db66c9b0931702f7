"""What every part of the GPU script is given, and the little that they share."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.report import Report


@dataclass(frozen=True)
class Task:
    """What a part is given.

    Attributes:
        device: ``cuda`` or ``cpu``.
        small: a dry run: every size as small as it can be.
        out: folder for what is to be kept.
        data: file of real clips; None: there is none.
        deadline: when it should have ended, on :func:`time.monotonic`'s clock.
        report: where findings go.
    """

    device: str
    small: bool
    out: Path
    data: Path | None
    deadline: float
    report: Report

    @property
    def seconds_left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.monotonic()

    def attempt(self, what: str, call: Callable[[], None], *, must_hold: bool = False) -> None:
        """Run one of a part's steps: an error is noted (or is a failed check), and the part goes on.

        A step that would begin after the deadline is left out.
        """
        if self.seconds_left < 0:
            self.report.note(f"{what}: left out, no time left")
            return
        try:
            call()
            self.synchronize()
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if must_hold:
                self.report.check(what, passed=False, detail=text)
            else:
                self.report.note(f"{what}: {text}")
            # After a fault in a kernel nothing works any more in this process, and this raises.
            self.synchronize()
        else:
            if must_hold:
                self.report.check(what, passed=True)
        finally:
            if self.device == "cuda" and torch.cuda.is_available():
                torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


@contextlib.contextmanager
def deterministic(enabled: bool = True) -> Iterator[None]:
    """Within, torch takes deterministic algorithms alone, and our kernels their first tile sizes."""
    before, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.deterministic = cudnn


@contextlib.contextmanager
def exact_fp32() -> Iterator[None]:
    """Within, fp32 products and convolutions are computed in fp32, not in TF32."""
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul
