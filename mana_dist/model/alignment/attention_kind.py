"""What a kind of alignment, and of cross-frame attention, consists of."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from mana_dist.model.alignment.cross_frame import Alignment, CrossFrameAttention, Sizes


@dataclass(frozen=True, kw_only=True)
class AlignmentKind:
    """A value of ``model.attention``: how what neighbour frames show comes into the centre frame's feature.

    Attributes:
        name: the value.
    """

    name: str

    def module(self, sizes: Sizes) -> Alignment:
        """Return the module; a subclass says which."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AttentionKind(AlignmentKind):
    """The paper's cross-frame attention, with something else taken from each frame.

    Attributes:
        build: makes the module, with parameters of its own if it likes, that takes query (B, C', H, W), key and value
            (B, T, C', H, W), and gives what is taken from each frame, (B, T, C', H, W).
        reach: LR pixels around a pixel that its result depends on; None: it looks at the whole frame.
    """

    build: Callable[[Sizes], nn.Module]
    reach: Callable[[Sizes], int | None]

    def module(self, sizes: Sizes) -> CrossFrameAttention:
        """Return the attention with what it takes."""
        return CrossFrameAttention(sizes, self.build(sizes), self.reach(sizes))
