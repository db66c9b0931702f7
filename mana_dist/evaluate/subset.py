"""The frames of a clip that are scored; the methods see all frames nonetheless."""

import re
import sys
from dataclasses import dataclass
from typing import Literal

from mana_dist.errors import UserError

_TEXT = re.compile(r"all|centre|inner:([0-9]+)")


@dataclass(frozen=True)
class FrameSubset:
    """A rule that picks the scored frames of a clip by its length.

    Attributes:
        kind: ``all``; ``inner``: all but ``margin`` frames at each end; ``centre``: the one in the middle.
        margin: frames that ``inner`` leaves out at each end.
    """

    kind: Literal["all", "inner", "centre"] = "all"
    margin: int = 0

    def __str__(self) -> str:
        return f"inner:{self.margin}" if self.kind == "inner" else self.kind

    @property
    def needs_length(self) -> bool:
        """Return whether the rule depends on the clip's length."""
        return self.kind != "all"

    def of(self, length: int | None) -> range:
        """Return the numbers of the scored frames in a clip of ``length`` frames, which only ``all`` can do without.

        The middle of an even number of frames is the later one of the two.
        """
        if length is None or self.kind == "all":
            return range(sys.maxsize if length is None else length)
        if self.kind == "centre":
            return range(length // 2, length // 2 + 1)
        return range(self.margin, length - self.margin)


ALL = FrameSubset()
CENTRE = FrameSubset("centre")


def parse_subset(text: str) -> FrameSubset:
    """Parse ``--frame-subset``: ``all``, ``inner:N`` or ``centre``.

    Raises:
        UserError: none of these.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise UserError(f"--frame-subset {text}: write all, centre, or inner:N to leave N frames out at each end")
    if match[1] is not None:
        return FrameSubset("inner", int(match[1]))
    return CENTRE if match[0] == "centre" else ALL
