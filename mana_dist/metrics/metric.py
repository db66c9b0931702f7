"""What a metric consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Measure = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""The value for a frame and the ground truth, both (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Unavailable:
    """A metric cannot be computed here.

    Attributes:
        reason: why, and what would mend it.
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
        """The same, on another device."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of the tables, and a number in ``metrics.json`` and MLflow.

    Attributes:
        name: in files, in ``--promote-if`` and in MLflow.
        label: in tables.
        unit: of the values; empty: none.
        what: explains it to a reader.
        definition: every choice that moves its numbers, for the protocol.
        digits: shown behind the point.
        larger_is_better: False for a distance.
        smallest_side: pixels; smaller frames have no value.
        in_sweeps: whether a sweep's table shows it, which has a group of columns for each dataset.
        load: makes what computes it, given a file of weights if the command line names one (None: it does not).
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
        """The label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """The title, and which way is better."""
        return f"{self.title} {'↑' if self.larger_is_better else '↓'}"

    def described(self, measure: Measure | Unavailable) -> str:
        """The definition with the weights of ``measure``, or why there is none."""
        if isinstance(measure, Unavailable):
            return f"not available: {measure.reason}"
        return f"{self.definition}, trunk {measure.source}" if isinstance(measure, Network) else self.definition
