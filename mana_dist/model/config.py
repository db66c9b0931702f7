"""The model's settings. Plain dataclass: this package imports torch alone."""

import difflib
from dataclasses import dataclass

from mana_dist.model.alignment_names import NAMES

SCALES = (2, 3, 4)
"""Upscaling factors that there are networks for."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """MANA's sizes (paper section 3.4; defaults are the paper's).

    Attributes:
        channels: C, the width of the features; even. The attention works in C' = C/2.
        encoder_blocks: residual blocks of the per-frame encoder.
        decoder_blocks: residual blocks of the decoder.
        frames: T, the frames that a window holds, centre included; odd.
        window: side of the spatial search window of the cross-frame attention; odd. ``dense`` has none.
        memory_slots: N, columns of the memory bank; 0 leaves the memory module out (the paper's No_Mem).
        scale: upscaling factor, 2, 3 or 4; the paper's is 4.
        attention: what the cross-frame attention takes from a neighbour frame. ``one_hot``: the best match in the
            window (the paper's method). ``softmax_window``: the average over the window by softmax. ``dense``: the
            same over the whole frame. These have the same parameters. ``phases``: no attention, but matched patches,
            sorted by the part of a pixel that they sample. ``none``: nothing, the network of a single frame.
            docs/architecture.md says how to add a kind.
    """

    channels: int = 128
    encoder_blocks: int = 5
    decoder_blocks: int = 40
    frames: int = 7
    window: int = 9
    memory_slots: int = 256
    scale: int = 4
    attention: str = "one_hot"

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"model.channels must be even and at least 2, got {self.channels}")
        for name in ("encoder_blocks", "decoder_blocks", "memory_slots"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} must not be negative, got {getattr(self, name)}")
        for name in ("frames", "window"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"model.{name} must be odd and positive, got {getattr(self, name)}")
        if self.scale not in SCALES:
            raise ValueError(f"model.scale must be one of {', '.join(map(str, SCALES))}, got {self.scale}")
        if self.attention not in NAMES:
            from mana_dist.model.alignment import KINDS

            if self.attention not in KINDS:
                nearest = difflib.get_close_matches(str(self.attention), KINDS, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f"model.attention must be one of {', '.join(KINDS)}, got {self.attention}; did you mean {nearest}?"
                )
