"""The authors' arithmetic in our network, to compare with: their attention, memory in the order (B, C, H, W), fp32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.activation import LEAKY_SLOPE


def released_attention(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Softmax attention over each whole frame with a Gaussian of the distance, sigma 4; ``window`` plays no part."""
    del window
    height, width = query.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1).to(query)
    gaussian = torch.exp(-torch.cdist(places, places).square() / (2 * 4.0**2))
    scores = torch.einsum("bcp,btcq->btpq", query.flatten(2), key.flatten(3))
    return torch.einsum("btpq,btcq->btcp", scores.softmax(-1) * gaussian, value.flatten(3)).view_as(key)


class _Released(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return released_attention(query, key, value, 0)


class ReleasedMana(Mana):
    """MANA with :func:`released_attention`, every tensor contiguous as torch makes it without being asked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.attention.attend = _Released()

    def encode(self, frames: Tensor) -> Tensor:
        """As :meth:`Mana.encode`, in (B, C, H, W)."""
        frames = frames.to(self.stem.weight.dtype, memory_format=torch.contiguous_format)
        return self._blocks(self.encoder, F.leaky_relu(self.stem(frames), LEAKY_SLOPE))
