"""Lines about sources that were rejected, for all who take many sources."""

from collections.abc import Sequence

from mana_dist.console import log
from mana_dist.data.manifest import Rejected

_LISTED = 20


def nothing_usable(rejected: Sequence[Rejected], none: str) -> str:
    """Return why no source can be used; ``none`` says it where not even one was rejected."""
    if not rejected:
        return none
    first = f"{rejected[0].source}: {rejected[0].reason}"
    return first if len(rejected) == 1 else f"none of the {len(rejected)} sources is usable; the first: {first}"


def log_rejected(items: Sequence[Rejected], file: str, what: str = "rejected") -> None:
    """Warn of each, and after some say that ``file`` has the others; ``what`` became of them."""
    for item in items[:_LISTED]:
        log.warning(f"{what}: {item.source}: {item.reason}")
    if len(items) > _LISTED:
        log.warning(f"... and {len(items) - _LISTED} more: see {file}")
