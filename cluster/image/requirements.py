"""``python requirements.py [--only] [EXTRA ...]``: pyproject's dependencies and those of its extras, a line each.

So the image's packages have a layer of their own, which a change of the code leaves as it is. Extras that pyproject
does not name add nothing.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path


def requirements(pyproject: str, extras: Sequence[str], only: bool) -> list[str]:
    """The requirements that a ``pyproject.toml`` names.

    Args:
        pyproject: its text.
        extras: names of optional dependencies.
        only: without those that are not optional, except what the build needs.

    Returns:
        Requirements as pip reads them, the build's first.
    """
    document = tomllib.loads(pyproject)
    project = document["project"]
    build: list[str] = [] if only else document["build-system"]["requires"]
    base: list[str] = [] if only else project["dependencies"]
    optional = project.get("optional-dependencies", {})
    own = re.compile(rf"{re.escape(project['name'])}\[(.+)\]")

    def lines(extra: str) -> Iterator[str]:
        for requirement in optional.get(extra, []):
            if match := own.fullmatch(requirement):
                for other in match[1].split(","):
                    yield from lines(other)
            else:
                yield requirement

    return list(dict.fromkeys([*build, *base, *(line for extra in extras for line in lines(extra))]))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    chosen = [argument for argument in arguments if argument != "--only"]
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(requirements(text, chosen, only="--only" in arguments)))
