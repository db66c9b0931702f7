"""Runnable entry: ``python -m pipelines.demo``, what `make demo` runs."""

from mana_dist.cli import run_process
from mana_dist.stack.demo import main

if __name__ == "__main__":
    run_process(main)
