"""Runnable entry: ``python tune/sweep_alignment.py``, the same as ``mana sweep alignment``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a Ray job's copy of the repository is not installed

from mana_dist.cli import run

if __name__ == "__main__":
    run("sweep", ["alignment"])
