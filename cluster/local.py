"""Runnable entry: ``python -m cluster.local``, the same as ``mana stack``."""

from mana_dist.cli import run

if __name__ == "__main__":
    run("stack")
