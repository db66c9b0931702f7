"""The attention operators; imports torch alone."""

from mana_dist.ops.dense import dense_attention
from mana_dist.ops.one_hot import one_hot_attention
from mana_dist.ops.softmax_window import softmax_window_attention

__all__ = ["dense_attention", "one_hot_attention", "softmax_window_attention"]
