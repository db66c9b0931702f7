"""Runnable entry: ``python -m pipelines.ingest``, the same as ``mana ingest``."""

from mana_dist.errors import run_command
from mana_dist.ingest.__main__ import main

if __name__ == "__main__":
    run_command(main)
