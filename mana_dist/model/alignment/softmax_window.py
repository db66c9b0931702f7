"""The average over the window around a pixel by the softmax of the scores."""

from torch import Tensor, nn

from mana_dist.model.alignment.attention_kind import AttentionKind
from mana_dist.model.alignment.cross_frame import Sizes
from mana_dist.ops import softmax_window_attention


class SoftmaxWindow(nn.Module):
    """:func:`mana_dist.ops.softmax_window_attention` as a module."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.window = sizes.window

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Q (B, C', H, W), K and V (B, T, C', H, W) -> (B, T, C', H, W)."""
        return softmax_window_attention(query, key, value, self.window)


KIND = AttentionKind(name="softmax_window", build=SoftmaxWindow, reach=lambda sizes: sizes.window // 2)
