"""No alignment: a network of a single frame, what neighbour frames have to beat."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mana_dist.model.alignment.attention_kind import AlignmentKind
from mana_dist.model.alignment.cross_frame import FrameAlignment, Sizes


class NoAlignment(FrameAlignment):
    """Takes nothing from the neighbour frames, which are not encoded either."""

    sees_neighbours = False
    reach = 0

    def key_value(self, frames: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Neither: tensors without channels."""
        return frames[..., :0, :, :], frames[..., :0, :, :]

    def forward(self, feature: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """F of the centre frames, (B, C, H, W) -> zeros of its size."""
        return torch.zeros_like(feature)


@dataclass(frozen=True, kw_only=True)
class NoKind(AlignmentKind):
    """The single frame."""

    def module(self, sizes: Sizes) -> NoAlignment:
        """Return what takes nothing."""
        return NoAlignment(sizes)


KIND = NoKind(name="none")
