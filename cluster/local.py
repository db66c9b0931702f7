"""Runnable entry: ``python -m cluster.local``, the same as ``mana stack``."""

from mana_dist.errors import run_command
from mana_dist.stack.__main__ import main

if __name__ == "__main__":
    run_command(main)
