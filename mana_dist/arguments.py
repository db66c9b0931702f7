"""Command-line parsing whose errors are one line."""

import argparse
import re
from fractions import Fraction
from typing import NoReturn

from mana_dist.errors import UserError

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
