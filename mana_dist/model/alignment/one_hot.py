"""The best match in the window around a pixel: the paper's method."""

from torch import Tensor, nn

from mana_dist.model.alignment.attention_kind import AttentionKind
from mana_dist.model.alignment.cross_frame import Sizes
from mana_dist.ops import one_hot_attention


class OneHot(nn.Module):
    """:func:`mana_dist.ops.one_hot_attention` as a module."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.window = sizes.window

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Q (B, C', H, W), K and V (B, T, C', H, W) -> (B, T, C', H, W)."""
        return one_hot_attention(query, key, value, self.window)


KIND = AttentionKind(name="one_hot", build=OneHot, reach=lambda sizes: sizes.window // 2)
