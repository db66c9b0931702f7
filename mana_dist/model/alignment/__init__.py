"""The kinds of alignment: how what neighbour frames show comes into the centre frame's feature, a module a kind.

A new kind of attention is a new module here that holds an :class:`AttentionKind`; what is none, another
:class:`AlignmentKind`. What its forward and backward passes cost is counted from torch's operations; one that loops
over a window brings its formula (``mana_dist.ops``).
"""

from mana_dist.kinds import Table
from mana_dist.model.alignment.attention_kind import AlignmentKind, AttentionKind
from mana_dist.model.alignment.cross_frame import Alignment, CrossFrameAttention, Sizes
from mana_dist.model.alignment_names import NAMES

KINDS = Table[AlignmentKind](AlignmentKind, __name__, __path__, first=NAMES)

__all__ = ["KINDS", "Alignment", "AlignmentKind", "AttentionKind", "CrossFrameAttention", "Sizes"]
