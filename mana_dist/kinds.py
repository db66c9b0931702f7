"""Tables of what comes in kinds: attentions, degradations, metrics. A module of a package holds a kind."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar


class Kind(Protocol):
    """What stands in a table."""

    @property
    def name(self) -> str:
        """The word for it in configurations, on command lines and in files."""


K = TypeVar("K", bound=Kind)


class Table(Mapping[str, K]):
    """Kinds by name, in a fixed order.

    Example::

        >>> KINDS = Table(AttentionKind, __name__, __path__, first=("one_hot",))
        >>> KINDS["one_hot"].build(sizes)
    """

    def __init__(self, kind: type[K], package: str, path: Iterable[str], first: Iterable[str] = ()) -> None:
        """Import every module of a package and take the kinds that stand at its top.

        Args:
            kind: their type.
            package: the package's name.
            path: its ``__path__``.
            first: names that come first, in this order; the others follow by the alphabet.
        """
        self._kind = kind
        self._kinds: dict[str, K] = {}
        modules = [importlib.import_module(f"{package}.{module.name}") for module in pkgutil.iter_modules(path)]
        found = [value for module in modules for value in vars(module).values() if isinstance(value, kind)]
        order = list(first)
        rank = {name: place for place, name in enumerate(order)}
        for value in sorted(found, key=lambda value: (rank.get(value.name, len(order)), value.name)):
            self.add(value)

    def add(self, kind: K) -> K:
        """Add a kind from elsewhere, and give it back; every process that meets its name must have added it.

        Raises:
            ValueError: the name is taken.
        """
        if self._kinds.setdefault(kind.name, kind) is not kind:
            raise ValueError(f"there is a {self._kind.__name__} named {kind.name} already")
        return kind

    def __getitem__(self, name: str) -> K:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)
