"""The operators of attention and alignment; imports torch alone."""

from mana_dist.ops.dense import dense_attention
from mana_dist.ops.one_hot import one_hot_attention
from mana_dist.ops.patches import Matches, Search
from mana_dist.ops.phases import match_patches, phase_channels, sort_by_phase
from mana_dist.ops.softmax_window import softmax_window_attention

__all__ = [
    "Matches",
    "Search",
    "dense_attention",
    "match_patches",
    "one_hot_attention",
    "phase_channels",
    "softmax_window_attention",
    "sort_by_phase",
]
