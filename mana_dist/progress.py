"""One live line on the console: how far, how fast, how long still; and words for numbers of things."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from mana_dist import console

TERMINAL_INTERVAL = 0.2  # seconds between updates of a line that is overwritten
LOG_INTERVAL = 5.0  # and between lines of a log


class LiveLine:
    """Counts frames and says so from time to time: overwriting one line on a terminal, line by line elsewhere."""

    def __init__(self, label: str, total: int | None, stream: TextIO | None = None) -> None:
        """Start the clock.

        Args:
            label: begins the line.
            total: frames expected, or None if that is not known.
            stream: where to write; unless given stderr, or nowhere where no command shows its lines.
        """
        self._label, self._total = label, total
        self._stream = stream or (sys.stderr if console.is_shown() else None)
        self._terminal = self._stream is not None and self._stream.isatty()
        self._start = self._said = time.monotonic()
        self.count = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Frames per second since the start."""
        return self.count / max(self.seconds, 1e-9)

    def step(self, frames: int = 1) -> None:
        """Count frames that are done."""
        self.count += frames
        now = time.monotonic()
        if self._stream and now - self._said >= (TERMINAL_INTERVAL if self._terminal else LOG_INTERVAL):
            self._said = now
            self._stream.write(f"\r{self._line()}" if self._terminal else f"{self._line().rstrip()}\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave a terminal's line clear for what comes next."""
        if self._stream and self._terminal:
            self._stream.write("\r" + " " * len(self._line()) + "\r")
            self._stream.flush()

    def _line(self) -> str:
        if self._total is None or self._total < self.count:
            return f"{self._label}: frame {self.count}, {self.rate:.2f} frames/s  "
        left = (self._total - self.count) / max(self.rate, 1e-9)
        return f"{self._label}: frame {self.count}/{self._total}, {self.rate:.2f} frames/s, ETA {duration(left)}  "


def duration(seconds: float) -> str:
    """``h:mm:ss``, or ``m:ss`` below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def count(number: int, what: str) -> str:
    """Return ``1 clip``, ``2 clips``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def some(names: Sequence[str], most: int) -> str:
    """Return ``a, b and 3 more``: at most so many of the names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
