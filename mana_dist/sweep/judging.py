"""What finished models are compared on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How finished models are evaluated.

    Attributes:
        data: URIs of the ground truth, as ``mana_dist.evaluate --data`` takes them.
        frames: START:STOP of each clip.
        lpips_trunk: file of AlexNet's weights; None: torchvision's.
    """

    data: tuple[str, ...]
    frames: str = ":"
    lpips_trunk: str | None = None


def from_json(values: Mapping[str, Any] | None) -> Judging | None:
    """What JSON has made of one."""
    return None if values is None else Judging(**{**values, "data": tuple(values["data"])})
