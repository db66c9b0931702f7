"""``python -m mana_dist.train --config tiny|paper|FILE.yaml [--key.path VALUE ...]``."""

from mana_dist import config as configuration
from mana_dist.errors import run_command


def main(arguments: list[str]) -> None:
    """Train as the command line says, and tell where the model is."""
    config = configuration.parse(arguments)

    from mana_dist.train.driver import train  # a mistyped key is told before torch is loaded

    trained = train(config)
    print(f"model: {trained.model}")
    print(f"registered as {trained.registered} with alias 'candidate'")


if __name__ == "__main__":
    run_command(main)
