"""``mana COMMAND ...``: everything that can be done, under one name."""

import argparse
import atexit
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from mana_dist import __version__
from mana_dist.allocator import keep_freed_memory
from mana_dist.arguments import Parser
from mana_dist.errors import UserError, run_command


@dataclass(frozen=True)
class Command:
    """What ``mana NAME`` runs: ``main(arguments)`` of ``mana_dist.NAME.__main__``, imported only when it is called.

    Attributes:
        summary: one line for the list of commands.
        extra: the optional dependencies that it cannot do without; empty where it can.
        needs: the libraries that these bring.
    """

    summary: str
    extra: str = ""
    needs: tuple[str, ...] = ()


COMMANDS = {
    "ingest": Command("videos, frame folders or Vimeo90K into training samples", "ray", ("ray",)),
    "train": Command("the three training stages, to a registered model", "train", ("ray", "deepspeed", "mlflow")),
    "evaluate": Command("models against bicubic, by the paper's protocol"),
    "upscale": Command("a video four times per side; or many, on a cluster"),
    "sweep": Command(
        "memory, window or alignment: a training per setting, compared", "train", ("ray", "deepspeed", "mlflow")
    ),
    "serve": Command("a model behind HTTP", "serve", ("ray", "fastapi", "pydantic")),
    "export": Command("a model as an ONNX file, or one of torch.export"),
    "stack": Command("up, down, status: all servers on this machine, for trying it"),
}

_EXTRAS = {
    "ray": "ray",
    "mlflow": "mlflow",
    "pydantic": "serve",
    "psutil": "all",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
}
"""Which extra installs a library, where a command needs it for some of its work only."""


def run(name: str, arguments: Sequence[str] = ()) -> None:
    """Run a command and leave the process with its exit code; ``arguments`` come before those of the command line."""
    command = COMMANDS[name]

    def missing(library: str, extra: str) -> UserError:
        return UserError(f"mana {name} needs {library} here, which is missing; pip install 'mana-dist[{extra}]'")

    def main(given: list[str]) -> None:
        keep_freed_memory()
        for library in command.needs:
            if find_spec(library) is None and not {"-h", "--help"} & set(given):
                raise missing(library, command.extra)
        try:
            import_module(f"mana_dist.{name}.__main__").main([*arguments, *given])
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            raise missing(error.name, _EXTRAS[error.name]) from error

    run_process(main)


def main() -> None:
    """Run the command that the command line names."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        name = sys.argv.pop(1)
        run(name)
    else:
        run_process(_help)


def run_process(main: Callable[[list[str]], None]) -> None:
    """Do as :func:`mana_dist.errors.run_command`; whatever libraries do at their end, the exit code stays."""
    leaving = _Leaving()
    atexit.register(leaving.leave)  # the first, so that it is called last
    try:
        run_command(main)
    except SystemExit as error:
        leaving.code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except BaseException:
        leaving.code = 1
        raise


class _Leaving:
    """Ends the process once Python has cleared up, before C++ libraries do.

    Arrow's thread pools abort now and then at that (apache/arrow#34314), and a command that has done its work then
    ends with exit code 134.
    """

    def __init__(self) -> None:
        self.code = 0

    def leave(self) -> None:
        logging.shutdown()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk
            self.code = self.code or 120  # Python's own answer
        os._exit(self.code)


def _help(arguments: list[str]) -> None:
    listed = "\n".join(f"  {name:10}{command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        prog="mana",
        usage="mana COMMAND ...",
        description=f"Video super-resolution with MANA.\n\ncommands:\n{listed}\n\nmana COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.parse_args(arguments)


if __name__ == "__main__":
    main()
