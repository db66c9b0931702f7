"""A package's public names, imported at their first use, so that a command's help does not wait for torch."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazily(package: str, modules: dict[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package (PEP 562).

    Args:
        package: its ``__name__``.
        modules: the public names, with blanks between them, by the module that holds them: ``.config``, ``..errors``.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name], package), name)

    return find
