"""The average over the whole frame by the softmax of the scores."""

from torch import Tensor, nn

from mana_dist.model.alignment.attention_kind import AttentionKind
from mana_dist.model.alignment.cross_frame import Sizes
from mana_dist.ops import dense_attention


class Dense(nn.Module):
    """:func:`mana_dist.ops.dense_attention` as a module."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Q (B, C', H, W), K and V (B, T, C', H, W) -> (B, T, C', H, W)."""
        return dense_attention(query, key, value)


KIND = AttentionKind(name="dense", build=Dense, reach=lambda sizes: None)
