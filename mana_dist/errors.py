"""The one exception for a user's mistake, and how every command turns it into exit code 2."""

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from mana_dist import console

# A password may hold "/" and, with a colon before it, "@" too, as SQLAlchemy takes it; in a path "@" is no secret.
_USER = re.compile(r"(?<=://)(?:[^\s/:?#@]*:\S*|[^\s/?#@]+)@")
_NAMES = "password|passwd|pwd|secret|token|signature|sig|credential"
_PARAMETER = re.compile(rf"(?i)(?<=[?&])([\w.-]*(?:{_NAMES})=)[^&#\s'\")]*[^&#\s'\"):,;]")
_TERMINATED = 128 + signal.SIGTERM

HIDDEN = "***"
"""What stands for a secret."""


class UserError(Exception):
    """Bad usage or bad input: one line that names what is wrong and how to mend it, and no password."""

    def __init__(self, message: str) -> None:
        """Keep ``message`` as :func:`redacted` gives it: it goes to consoles, logs and records."""
        super().__init__(redacted(message))


def redacted(text: str) -> str:
    """Return ``text`` with :data:`HIDDEN` for the user and password in its URIs, and for secrets in their queries."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def one_line(error: BaseException) -> str:
    """An error's message on a single line, without passwords."""
    return redacted(" ".join(str(error).split()))


def run_command(main: Callable[[list[str]], None]) -> None:
    """Run a command line's ``main(argv)`` and leave the process with the project's exit codes.

    0: the work is done; 2: a :class:`UserError`, printed as one line on stderr without a traceback;
    130: interrupted by Ctrl-C (once more ends it at once); 143: by SIGTERM, where that is caught. Any other exception
    is a bug and keeps its traceback.
    """
    console.show()
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        # Ray's end takes a second, and would answer another Ctrl-C with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except SystemExit as error:
        if error.code == _TERMINATED:
            print("terminated", file=sys.stderr)
        raise


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises SystemExit, where it would end the process at once: there is something to clear up or to say."""
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)
