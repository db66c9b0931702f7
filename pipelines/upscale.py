"""Runnable entry: ``python -m pipelines.upscale``, upscales many videos on a cluster."""

from mana_dist.errors import run_command
from mana_dist.upscale.bucket.__main__ import main

if __name__ == "__main__":
    run_command(main)
