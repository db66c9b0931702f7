"""The library says nothing by itself; a command shows its lines, warnings on stderr."""

import logging
import os
import subprocess
import sys

from mana_dist.console import log

SAY = """
from mana_dist.console import log, show
from mana_dist.progress import LiveLine
if {shown}:
    show()
    show()
log.info("100% done")
log.warning("left out: a")
line = LiveLine("frames", 3)
line._said -= 60
line.step()
"""


def say(*, shown: bool) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", SAY.format(shown=shown)], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_the_library_is_silent() -> None:
    assert say(shown=False) == ("", "")


def test_a_command_shows_each_line_once_and_as_it_is() -> None:
    out, err = say(shown=True)
    assert out == "100% done\n"
    first, second = err.splitlines()
    assert first == "left out: a"
    assert second.startswith("frames: frame 1/3")


def test_a_closed_pipe_is_an_error_for_the_caller_as_with_print() -> None:
    code = "import os; from mana_dist.console import log, show; show(); os.close(1); log.info('a')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "OSError: [Errno 9]" in done.stderr
    assert "Logging error" not in done.stderr


def test_names_that_are_not_utf8_are_logged_as_text() -> None:
    """As any handler may write them to a file."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    log.addHandler(handler)
    try:
        log.warning("frames %s and %s", "g0.png", os.fsdecode(b"\xff1.png"))
    finally:
        log.removeHandler(handler)
    assert records[0].getMessage() == "frames g0.png and ?1.png"
