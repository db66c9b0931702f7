"""``mana train --config tiny|paper|FILE.yaml [--key.path VALUE ...] [--dry-run]``."""

from collections.abc import Sequence

from mana_dist.console import log

DRY_RUN = "--dry-run"


def main(arguments: Sequence[str]) -> None:
    """Train by a command line, and print where the model is; with ``--dry-run`` only check and print the plan."""
    from mana_dist import config as configuration  # slow; imported here so that Ctrl-C is handled meanwhile

    keys = [argument for argument in arguments if argument != DRY_RUN]
    config = configuration.parse(keys, prog=f"mana train [{DRY_RUN}]")
    if DRY_RUN in arguments:
        from mana_dist.train.planning.run_plan import dry_run

        dry_run(config)
        return

    from mana_dist.train import train  # imports torch, slow; after the keys are checked

    trained = train(config)
    log.info(f"model: {trained.model}")
    if trained.registered:
        log.info(f"registered as {trained.registered} {trained.candidate or ''}".rstrip())


if __name__ == "__main__":
    from mana_dist.cli import run

    run("train")
