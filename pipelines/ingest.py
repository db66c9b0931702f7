"""Runnable entry: ``python -m pipelines.ingest``, the same as ``mana ingest``."""

from mana_dist.cli import run

if __name__ == "__main__":
    run("ingest")
