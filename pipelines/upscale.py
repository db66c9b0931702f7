"""Runnable entry: ``python -m pipelines.upscale``, the same as ``mana upscale``."""

from mana_dist.cli import run

if __name__ == "__main__":
    run("upscale")
