"""The sweep's live table on the console: what every trial is doing, and when all will be done."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from mana_dist.progress import duration
from mana_dist.sweep.trial_messages import Report

TERMINAL_INTERVAL, LOG_INTERVAL, QUIET_INTERVAL = 1.0, 30.0, 600.0
"""Seconds between two tables: on a terminal, where the new one overwrites the old one; in a log; and in a log as long
as no trial has come to another stage."""

WAITING = "waiting"
_OVER = ("finished", "failed", "stopped", "over")


@dataclass(frozen=True)
class Line:
    """A trial's line of the table."""

    name: str  # the trial's
    last: Report = field(default_factory=lambda: Report(what=WAITING))  # its newest report
    psnr: float | None = None  # of its newest validation, dB
    begun: float | None = None  # clock when this sweep command first had a report of it; None before that
    ended: float | None = None  # clock when it was over

    @property
    def is_over(self) -> bool:
        """Return whether nothing is left to do."""
        return self.ended is not None or self.last.what in _OVER

    def updated(self, report: Report, now: float) -> "Line":
        """Return the line after a report; what that leaves out stays as it was."""
        values = {key: value for key, value in dataclasses.asdict(report).items() if value is not None}
        last = dataclasses.replace(self.last, **values)
        begun = now if self.begun is None else self.begun
        return dataclasses.replace(self, last=last, psnr=self.psnr if report.psnr is None else report.psnr, begun=begun)


def remaining(lines: Sequence[Line], at_once: int, now: float) -> float | None:
    """Return the seconds until all are over, if those that wait take as long as the others; None: it is too early."""
    left: list[float] = []
    whole: list[float] = []
    waiting = 0
    for line in lines:
        if line.begun is None:
            waiting += not line.is_over
        elif line.is_over:
            whole.append((line.ended or now) - line.begun)
        elif line.last.eta_seconds is not None:
            left.append(line.last.eta_seconds)
            whole.append(now - line.begun + line.last.eta_seconds)
        else:  # it has only just begun
            waiting += 1
    if waiting and not whole:
        return None
    total = sum(left) + (waiting * sum(whole) / len(whole) if waiting else 0.0)
    return max([total / max(1, at_once), *left])


def table(lines: Iterable[Line], eta: float | None) -> list[str]:
    """Return the lines of the table's text."""
    rows = [("trial", "", "stage", "step", "loss", "val PSNR", "ETA")]
    for line in lines:
        last = line.last
        running = not line.is_over and last.total
        rows.append(
            (
                line.name,
                last.what,
                str(last.stage) if running and last.stage else "",
                f"{last.step}/{last.total}" if last.total else "",
                "" if last.loss is None else f"{last.loss:.5f}",
                "" if line.psnr is None else f"{line.psnr:.2f}",
                duration(last.eta_seconds) if running and last.eta_seconds is not None else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*texts, f"ETA of all: {'not known yet' if eta is None else duration(eta)}"]


class Board:
    """The table, printed from time to time.

    Args:
        names: of the trials, in the table's order.
        at_once: trials that run at a time.
        stream: where to print.
        clock: seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        at_once: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = {name: Line(name) for name in names}
        self._at_once = at_once
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._height = 0
        self._stages: list[tuple[str, int]] = []
        self._printed_at = clock() - (TERMINAL_INTERVAL if self._terminal else LOG_INTERVAL)

    def report(self, name: str, report: Report) -> None:
        """Take a trial's report."""
        self._lines[name] = self._lines[name].updated(report, self._clock())

    def ended(self, name: str) -> None:
        """Take note that a trial is over, or that its process died for good."""
        line = self._lines[name]
        last = line.last if line.is_over else dataclasses.replace(line.last, what="over")
        self._lines[name] = dataclasses.replace(line, last=last, ended=self._clock())

    def refresh(self, *, now: bool = False) -> None:
        """Print the table if it is time to, or ``now``."""
        clock = self._clock()
        lines = list(self._lines.values())
        stages = [(line.last.what, line.last.stage) for line in lines]
        interval = LOG_INTERVAL if stages != self._stages else QUIET_INTERVAL
        if not now and clock - self._printed_at < (TERMINAL_INTERVAL if self._terminal else interval):
            return
        self._printed_at, self._stages = clock, stages
        texts = table(lines, remaining(lines, self._at_once, clock))
        if self._terminal and self._height:
            self._stream.write(f"\x1b[{self._height}F\x1b[J")
        self._stream.write("\n".join(texts) + "\n" + ("" if self._terminal else "\n"))
        self._stream.flush()
        self._height = len(texts)
