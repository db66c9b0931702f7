"""The one-hot attention operator; imports torch alone."""

from mana_dist.ops.one_hot import one_hot_attention

__all__ = ["one_hot_attention"]
