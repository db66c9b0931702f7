"""No alignment: a network of a single frame, what neighbour frames have to beat."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mana_dist.model.alignment.attention_kind import AlignmentKind
from mana_dist.model.alignment.cross_frame import Alignment, Sizes


class NoAlignment(Alignment):
    """Takes nothing from the neighbour frames, which are not encoded either."""

    encodes_neighbours = False
    reach = 0

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.to_query = nn.Conv2d(sizes.features, sizes.channels, 1) if sizes.memory_slots else None

    def key_value(self, frames: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Neither: tensors without channels."""
        return frames[..., :0, :, :], frames[..., :0, :, :]

    def query(self, feature: Tensor) -> Tensor:
        """Return the memory's Q of centre frames: (B, C, H, W) -> (B, C', H, W), or no channels without a memory."""
        return feature[:, :0] if self.to_query is None else self.to_query(feature)

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
