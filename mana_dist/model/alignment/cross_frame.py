"""What an alignment is, and the paper's cross-frame attention, whatever it takes from each frame."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What an alignment is built for.

    Attributes:
        features: C, channels of a frame's feature.
        channels: C' of query, key and value.
        frames: T.
        window: side of the search window, odd.
        memory_slots: columns of the memory bank that takes its query from here; 0: there is none.
    """

    features: int
    channels: int
    frames: int
    window: int
    memory_slots: int


class Alignment(nn.Module):
    """How what neighbour frames show comes into the centre frame's feature.

    Attributes:
        encodes_neighbours: whether K and V need the neighbours' features.
        sees_neighbours: whether its result depends on other frames than the centre one.
        reach: LR pixels around a pixel that its result depends on; None: it is given the whole frame.
        project: the last convolution, which starts at zero, so that the network starts as that of a single frame.
    """

    encodes_neighbours: bool
    sees_neighbours = True
    reach: int | None
    project: nn.Conv2d

    @abstractmethod
    def key_value(self, frames: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """What frames give to every window that they are in: (..., 3, H, W) and (..., C, H, W) -> K and V."""

    @abstractmethod
    def query(self, feature: Tensor) -> Tensor:
        """Q of centre frames, which the memory asks with too: (B, C, H, W) -> (B, C', H, W)."""

    @abstractmethod
    def forward(self, feature: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """F and Q of centre frames, K and V of their windows (B, T, ..., H, W) -> what is added to F, (B, C, H, W)."""

    def at_matches(self, images: Tensor, query: Tensor, key: Tensor) -> Tensor | None:
        """What images of the frames show at the matches of each pixel: (B, T, H, W) -> (B, T - 1, H, W).

        None for an alignment that matches no single pixels. T need not be that of the windows.
        """
        return None


class FrameAlignment(Alignment):
    """An alignment that looks at frames as they are, so that the memory alone needs a query.

    Args:
        sizes: what it is built for.
    """

    encodes_neighbours = False

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.to_query = nn.Conv2d(sizes.features, sizes.channels, 1) if sizes.memory_slots else None

    def query(self, feature: Tensor) -> Tensor:
        """Return the memory's Q of centre frames: (B, C, H, W) -> (B, C', H, W), or no channels without a memory."""
        return feature[:, :0] if self.to_query is None else self.to_query(feature)


@runtime_checkable
class Matching(Protocol):
    """An attention that takes from each frame what lies at one pixel."""

    def at_matches(self, images: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """As :meth:`Alignment.at_matches`."""


class CrossFrameAttention(Alignment):
    """Cross-frame non-local attention (paper section 3.2, figure 3).

    One GroupNorm (32 groups, or the largest divisor of C below that) serves query, key and value. The T frames'
    results are concatenated to T*C' channels and projected to C by a 1x1 convolution that starts at zero. What is
    taken from a frame, ``config.attention`` says (:mod:`mana_dist.model.alignment`); all else is the same, so that the
    paper's one-hot attention can be compared with what it replaces.

    Attributes:
        attend: Q (B, C', H, W), K and V (B, T, C', H, W) -> what is taken from each frame, (B, T, C', H, W).
    """

    encodes_neighbours = True

    def __init__(self, sizes: Sizes, attend: nn.Module, reach: int | None) -> None:
        super().__init__()
        channels, inner = sizes.features, sizes.channels
        self.reach = reach
        self.norm = nn.GroupNorm(max(g for g in range(1, 33) if channels % g == 0), channels)
        self.to_query = nn.Conv2d(channels, inner, 1)
        self.to_key = nn.Conv2d(channels, inner, 1)
        self.to_value = nn.Conv2d(channels, inner, 1)
        self.project = nn.Conv2d(sizes.frames * inner, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]
        self.attend = attend

    def key_value(self, frames: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of frames, from their features (B, C, H, W): two (B, C', H, W)."""
        normalised = self._normalised(feature)
        return self.to_key(normalised), self.to_value(normalised)

    def query(self, feature: Tensor) -> Tensor:
        """Q of centre frames: (B, C, H, W) -> (B, C', H, W)."""
        query: Tensor = self.to_query(self._normalised(feature))
        return query

    def _normalised(self, feature: Tensor) -> Tensor:
        # Not by calling the module: it refuses what has one value to a group, a frame of one pixel.
        norm = self.norm
        normalised = torch.group_norm(feature, norm.num_groups, norm.weight, norm.bias, norm.eps)
        # On a GPU torch gives it with the channels outermost, in which the attention's kernels are slow.
        is_channels_last = feature.is_contiguous(memory_format=torch.channels_last)
        return normalised.contiguous(memory_format=torch.channels_last) if is_channels_last else normalised

    def forward(self, feature: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Q (B, C', H, W), K and V (B, T, C', H, W) -> the projected X, (B, C, H, W)."""
        projected: Tensor = self.project(self.attend(query, key, value).flatten(1, 2))
        return projected

    def at_matches(self, images: Tensor, query: Tensor, key: Tensor) -> Tensor | None:
        """What images show at the matches, where what is taken is a match."""
        return self.attend.at_matches(images, query, key) if isinstance(self.attend, Matching) else None


def neighbours(frames: Tensor) -> Tensor:
    """All frames but the centre one: (B, T, ...) -> (B, T - 1, ...)."""
    middle = frames.shape[1] // 2
    return torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1)
