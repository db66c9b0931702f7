"""What a command says: the library only logs, and a command shows the log's lines as they are."""

import io
import logging
import sys

log = logging.getLogger("mana_dist")
log.addHandler(logging.NullHandler())  # who imports the library decides what is shown


def _as_text(record: logging.LogRecord) -> bool:
    """Put "?" for what no file and no console takes: names of files that are not UTF-8 reach Python as surrogates."""
    record.msg, record.args = record.getMessage().encode(errors="replace").decode(), ()
    return True


log.addFilter(_as_text)


class _Console(logging.Handler):
    """Prints lines to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one; what the stream raises (a closed pipe, a full disk) is the caller's to handle."""
        print(record.getMessage(), file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout, flush=True)


def show() -> None:
    """Show this process's log lines on its console.

    A character that the console's encoding lacks (an arrow, in ASCII) becomes "?" instead of an exception.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not is_shown():
        log.setLevel(logging.INFO)
        log.propagate = False  # other libraries add handlers to the root logger, which would say all twice
        log.addHandler(_Console())


def is_shown() -> bool:
    """Return whether a command shows its lines here, and so may draw a live line too."""
    return any(isinstance(handler, _Console) for handler in log.handlers)
