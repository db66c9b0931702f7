"""The parts of a metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mana_dist.metrics.trail import Trail

Measure = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Function of a frame and the ground truth, both (H, W, 3) uint8 RGB."""

Compared = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A frame and the ground truth, as for :data:`Measure`."""


@dataclass(frozen=True)
class PairMeasure:
    """A measure of a method's frame and the one before it.

    Attributes:
        measure: function of both, the earlier first, and of where the later one's pixels were in the earlier one.
    """

    measure: Callable[[Compared, Compared, Trail], float]


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
        partial: whether a frame or a clip may have none of it; a mean is over those that have one, and a table has
            the column where some clip does.
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
    load: Callable[[str | None], Measure | PairMeasure | Unavailable]
    partial: bool = False

    @property
    def title(self) -> str:
        """Label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """Title with an arrow to the better values."""
        return f"{self.title} {'↑' if self.larger_is_better else '↓'}"

    def described(self, measure: Measure | PairMeasure | Unavailable) -> str:
        """Return the definition with the weights of ``measure``, or why there is none."""
        if isinstance(measure, Unavailable):
            return f"not available: {measure.reason}"
        return f"{self.definition}, trunk {measure.source}" if isinstance(measure, Network) else self.definition
