"""``python -m mana_dist.train --config tiny|paper|FILE.yaml [--key.path VALUE ...] [--dry-run]``."""

from mana_dist import config as configuration
from mana_dist.errors import run_command

DRY_RUN = "--dry-run"


def main(arguments: list[str]) -> None:
    """Train as the command line says, and tell where the model is; with ``--dry-run`` only check and tell the plan."""
    keys = [argument for argument in arguments if argument != DRY_RUN]
    config = configuration.parse(keys, prog=f"python -m mana_dist.train [{DRY_RUN}]")
    if DRY_RUN in arguments:
        from mana_dist.train.planning.run_plan import dry_run

        dry_run(config)
        return

    from mana_dist.train.run_training import train  # a mistyped key is told before torch is loaded

    trained = train(config)
    print(f"model: {trained.model}")
    if trained.registered:
        print(f"registered as {trained.registered} {trained.candidate or ''}".rstrip())


if __name__ == "__main__":
    run_command(main)
