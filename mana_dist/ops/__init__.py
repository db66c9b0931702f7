"""The operators of attention and alignment; imports torch alone."""

from mana_dist.ops.dense import dense_attention
from mana_dist.ops.one_hot import one_hot_attention
from mana_dist.ops.phases import match_patches, sort_by_phase
from mana_dist.ops.softmax_window import softmax_window_attention

__all__ = ["dense_attention", "match_patches", "one_hot_attention", "softmax_window_attention", "sort_by_phase"]
