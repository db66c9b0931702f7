"""The best match in the window around a pixel: the paper's method."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mana_dist.model.alignment.attention_kind import AttentionKind
from mana_dist.model.alignment.cross_frame import Sizes, neighbours
from mana_dist.ops import one_hot_attention


class OneHot(nn.Module):
    """:func:`mana_dist.ops.one_hot_attention` as a module."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.window = sizes.window

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Q (B, C', H, W), K and V (B, T, C', H, W) -> (B, T, C', H, W)."""
        return one_hot_attention(query, key, value, self.window)

    def at_matches(self, images: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """What images show at the winners, (B, T - 1, H, W); not a number where the score is zero."""
        missing = max(2 - query.shape[1], 0)  # channels for what is fetched
        query, key = (F.pad(tensor, [0, 0, 0, 0, 0, missing]) for tensor in (query, key))
        # The operator gives score times value: with a value of one beside the image's, their quotient is the image's.
        value = torch.zeros_like(key)
        value[:, :, 0], value[:, :, 1] = images, 1
        fetched = one_hot_attention(query, key, value, self.window)
        return neighbours(fetched[:, :, 0] / fetched[:, :, 1])


KIND = AttentionKind(name="one_hot", build=OneHot, reach=lambda sizes: sizes.window // 2)
