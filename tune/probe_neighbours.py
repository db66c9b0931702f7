"""Runnable entry: ``python tune/probe_neighbours.py DATASET``; see :mod:`mana_dist.sweep.neighbour_probe`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mana_dist.cli import run_process
from mana_dist.sweep.neighbour_probe import main

if __name__ == "__main__":
    run_process(main)
