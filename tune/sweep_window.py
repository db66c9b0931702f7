"""``python tune/sweep_window.py``: quality against the search window and the number of frames."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a Ray job's copy of the repository is not installed

from mana_dist.errors import run_command
from mana_dist.sweep.command import window_main

if __name__ == "__main__":
    run_command(window_main)
