"""What a kind of cross-frame attention consists of."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What an attention is built for.

    Attributes:
        channels: C' of query, key and value.
        frames: T.
        window: side of the search window, odd.
    """

    channels: int
    frames: int
    window: int


@dataclass(frozen=True, kw_only=True)
class AttentionKind:
    """A value of ``model.attention``.

    Attributes:
        name: the value.
        build: makes the module, with parameters of its own if it likes, that takes query (B, C', H, W), key and value
            (B, T, C', H, W), and gives what is taken from each frame, (B, T, C', H, W).
        reach: LR pixels around a pixel that its result depends on; None: it looks at the whole frame.
    """

    name: str
    build: Callable[[Sizes], nn.Module]
    reach: Callable[[Sizes], int | None]
