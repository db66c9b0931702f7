"""Command lines: parsing whose errors are one line, and how a command is shown."""

import argparse
import os
import re
import shlex
from collections.abc import Iterable
from fractions import Fraction
from typing import NoReturn

from mana_dist.errors import UserError, redacted

_ROOMS = ("mana_dist", "pipelines", "tune", "cluster")  # where the entries of commands lie
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(%?)", re.ASCII)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises :class:`UserError` where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every mistake on the command line."""
        raise UserError(f"{message}; see {self.prog} --help")


def parse_share(text: str) -> Fraction | int | None:
    """Return the share that ``6%`` stands for, or the number that ``10`` is; None: neither, or out of range."""
    match = _SHARE.fullmatch(text.strip())
    if match is not None and match[2] and 0 < Fraction(match[1]) <= 100:
        return Fraction(match[1]) / 100
    if match is not None and not match[2] and match[1].isdecimal() and int(match[1]) > 0:
        return int(match[1])
    return None


def command(arguments: Iterable[str]) -> str:
    """Return a command line as one would type it, the programs by name alone, without passwords in its URIs.

    Args:
        arguments: as in ``sys.orig_argv``, the interpreter first.
    """
    interpreter, *rest = arguments
    if rest and os.path.basename(rest[0]) == "mana":
        return redacted(shlex.join(["mana", *rest[1:]]))
    is_module = len(rest) > 1 and rest[0] == "-m" and rest[1].split(".")[0] in _ROOMS
    is_entry = bool(rest) and os.path.basename(os.path.dirname(os.path.abspath(rest[0]))) in _ROOMS
    if is_module or is_entry:
        return redacted(shlex.join([os.path.basename(interpreter), *rest]))
    return "Python"  # a notebook, a program in an option, a worker of a cluster: no command of ours
