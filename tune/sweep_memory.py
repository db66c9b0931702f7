"""``python tune/sweep_memory.py``: quality against the number of memory slots (the paper's Table 3)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a Ray job's copy of the repository is not installed

from mana_dist.errors import run_command
from mana_dist.sweep.command import memory_main

if __name__ == "__main__":
    run_command(memory_main)
