"""``mana train --config tiny|paper|FILE.yaml [--key.path VALUE ...] [--dry-run]``."""

from collections.abc import Sequence

from mana_dist.console import log

DRY_RUN = "--dry-run"


def main(arguments: Sequence[str]) -> None:
    """Train as the command line says, and say where the model is; with ``--dry-run`` only check and show the plan."""
    from mana_dist import config as configuration  # takes a while, in which Ctrl-C is answered too

    keys = [argument for argument in arguments if argument != DRY_RUN]
    config = configuration.parse(keys, prog=f"mana train [{DRY_RUN}]")
    if DRY_RUN in arguments:
        from mana_dist.train.planning.run_plan import dry_run

        dry_run(config)
        return

    from mana_dist.train import train  # brings torch: a mistyped key is answered before

    trained = train(config)
    log.info(f"model: {trained.model}")
    if trained.registered:
        log.info(f"registered as {trained.registered} {trained.candidate or ''}".rstrip())


if __name__ == "__main__":
    from mana_dist.cli import run

    run("train")
