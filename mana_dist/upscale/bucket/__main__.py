"""``python -m pipelines.upscale``: see the package."""

from mana_dist.errors import UserError, run_command
from mana_dist.upscale.bucket.config import parse


def main(argv: list[str]) -> None:
    """Run the command; ``argv`` without the program's name.

    Raises:
        UserError: bad usage, nothing usable, or work that could not be finished.
    """
    asked = parse(argv)
    from mana_dist.upscale.bucket.run_bucket import (
        run,  # brings torch: a mistake on the command line should be told at once
    )

    try:
        run(asked)
    except OSError as error:  # those of sources are in the results
        raise UserError(f"{asked.out}: its storage failed ({error}); run the same command again") from error


if __name__ == "__main__":
    run_command(main)
