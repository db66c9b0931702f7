"""The parts of a metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Measure = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Function of a frame and the ground truth, both (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Unavailable:
    """The reason why a metric cannot be computed here.

    Attributes:
        reason: what is missing, and what would mend it.
    """

    reason: str


@runtime_checkable
class Network(Protocol):
    """A measure with weights.

    Attributes:
        source: where the weights come from.
    """

    source: str

    def on(self, device: str) -> Self:
        """Move it to another device, and return it."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of the tables, and a number in ``metrics.json`` and MLflow.

    Attributes:
        name: in files, in ``--promote-if`` and in MLflow.
        label: in tables.
        unit: of the values; empty: none.
        what: explanation for a reader.
        definition: every choice that changes its numbers, for the protocol.
        digits: shown after the point.
        larger_is_better: False for a distance.
        smallest_side: pixels; smaller frames have no value.
        in_sweeps: whether a sweep's table has a column of it for each dataset.
        load: returns what computes it, given the file of weights that the user names, or None.
    """

    name: str
    label: str
    unit: str
    what: str
    definition: str
    digits: int
    larger_is_better: bool
    smallest_side: int
    in_sweeps: bool
    load: Callable[[str | None], Measure | Unavailable]

    @property
    def title(self) -> str:
        """Label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """Title with an arrow to the better values."""
        return f"{self.title} {'↑' if self.larger_is_better else '↓'}"

    def described(self, measure: Measure | Unavailable) -> str:
        """Return the definition with the weights of ``measure``, or why there is none."""
        if isinstance(measure, Unavailable):
            return f"not available: {measure.reason}"
        return f"{self.definition}, trunk {measure.source}" if isinstance(measure, Network) else self.definition
