"""Command-line parsing whose errors are one line."""

import argparse
from typing import NoReturn

from mana_dist.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises :class:`UserError` where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every mistake on the command line."""
        raise UserError(f"{message}; see {self.prog} --help")
