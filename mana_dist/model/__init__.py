"""The MANA network (paper sections 3.1 to 3.4); imports torch alone."""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.model.config import ModelConfig
    from mana_dist.model.mana import FrameEmbedding, Mana
    from mana_dist.model.window import Padding, window_indices

__all__ = ["FrameEmbedding", "Mana", "ModelConfig", "Padding", "window_indices"]

__getattr__ = lazily(
    __name__, {".config": "ModelConfig", ".mana": "FrameEmbedding Mana", ".window": "Padding window_indices"}
)
