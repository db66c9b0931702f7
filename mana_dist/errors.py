"""The one exception for a user's mistake, and how every command turns it into exit code 2."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad usage or bad input: one line that names what is wrong and how to mend it."""


def one_line(error: BaseException) -> str:
    """An error's message on a single line."""
    return " ".join(str(error).split())


def run_command(main: Callable[[list[str]], None]) -> None:
    """Run a command line's ``main(argv)`` and leave the process with the project's exit codes.

    0: the work is done; 2: a :class:`UserError`, printed as one line on stderr without a traceback;
    130: interrupted by Ctrl-C. Any other exception is a bug and keeps its traceback.
    """
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
