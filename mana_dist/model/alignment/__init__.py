"""The kinds of cross-frame attention: what is taken from each frame, a module a kind.

A new kind is a new module here that holds an :class:`AttentionKind`. What its forward and backward passes cost is
counted from torch's operations; one that loops over a window brings its formula (``mana_dist.ops``).
"""

from mana_dist.kinds import Table
from mana_dist.model.alignment.attention_kind import AttentionKind, Sizes

KINDS = Table(AttentionKind, __name__, __path__, first=("one_hot", "softmax_window", "dense"))

__all__ = ["KINDS", "AttentionKind", "Sizes"]
