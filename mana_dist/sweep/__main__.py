"""The command ``mana sweep memory|window``."""

from collections.abc import Sequence

from mana_dist.arguments import Parser
from mana_dist.sweep.command import memory_main, window_main


def main(arguments: Sequence[str]) -> None:
    """Run the sweep that the first argument names.

    Raises:
        UserError: bad usage or bad input.
    """
    sweeps = {"memory": memory_main, "window": window_main}
    parser = Parser(prog="mana sweep", description="Train one model per setting, and compare them.")
    parser.add_argument("sweep", choices=sweeps, help="what is varied: mana sweep memory --help says more")
    sweeps[parser.parse_args(arguments[:1]).sweep](arguments[1:])
