"""Alignment without attention: patches are matched to a fraction of a pixel, and what they show is sorted by phase."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mana_dist.model.activation import leaky_relu
from mana_dist.model.alignment.attention_kind import AlignmentKind
from mana_dist.model.alignment.cross_frame import FrameAlignment, Sizes, neighbours
from mana_dist.ops import Matches, Search, match_patches, phase_channels, sort_by_phase

_HOOD, _BINS = 5, 2
_REACH = 3  # of the fusion's convolutions
# Where no gradient needs the phases, no more than these many bytes of them are held at once.
_BAND = 2**26


class PhaseAlignment(FrameAlignment):
    """Sub-pixel motion compensation by patches, fused with the centre frame's feature by three 3x3 convolutions.

    The last of them starts at zero, so that the network starts as that of a single frame. Neighbour frames are looked
    at as they are: they need no encoder. Nothing here depends on statistics of the whole frame, which is taken band by
    band.
    """

    reach = None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        channels = sizes.features
        self.search = Search(window=sizes.window)
        self.fuse1 = nn.Conv2d(phase_channels(_HOOD, _BINS) + channels, channels, 3, padding=1)
        self.fuse2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def key_value(self, frames: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames themselves, (..., 3, H, W), which need no key, and no value."""
        return frames, frames[..., :0, :, :]

    def forward(self, feature: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """F of the centre frames (B, C, H, W) and all frames (B, T, 3, H, W) -> what is added to F, (B, C, H, W)."""
        height, width = feature.shape[-2:]
        matches = match_patches(key, self.search)
        rows = _BAND // (4 * len(key) * width * self.fuse1.in_channels)
        if torch.is_grad_enabled() or rows >= height:
            return self._fused(feature, key, matches, 0)
        rows = max(rows, 4 * _REACH)
        bands = [self._band(feature, key, matches, top, min(top + rows, height)) for top in range(0, height, rows)]
        return torch.cat(bands, 2)

    def at_matches(self, images: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """What images show at the best matches of patches, (B, T - 1, H, W)."""
        matches = match_patches(key, self.search)
        places = (matches.y.long() * images.shape[-1] + matches.x.long()).flatten(2)
        return neighbours(images).flatten(2).gather(2, places).view_as(matches.y)

    def _band(self, feature: Tensor, frames: Tensor, matches: Matches, top: int, bottom: int) -> Tensor:
        above, below = max(top - _REACH, 0), min(bottom + _REACH, feature.shape[-2])
        part = Matches(*(tensor[:, :, above:below] for tensor in matches))
        return self._fused(feature[:, :, above:below], frames, part, above)[:, :, top - above : bottom - above]

    def _fused(self, feature: Tensor, frames: Tensor, matches: Matches, top: int) -> Tensor:
        """What is added to F, of the feature's and the matches' rows, the first of which is the frames' row ``top``."""
        found = sort_by_phase(frames, matches, _HOOD, _BINS, top).to(feature.dtype)
        x = leaky_relu(self.fuse1(torch.cat([found, feature], 1)))
        x = leaky_relu(self.fuse2(x))
        added: Tensor = self.project(x)
        return added


@dataclass(frozen=True, kw_only=True)
class PhaseKind(AlignmentKind):
    """Patches matched and sorted by phase."""

    def module(self, sizes: Sizes) -> PhaseAlignment:
        """Return the alignment."""
        return PhaseAlignment(sizes)


KIND = PhaseKind(name="phases")
