"""How unlike the centre frame is what an alignment finds in its neighbours."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mana_dist.model.alignment import CrossFrameAttention
from mana_dist.model.alignment.one_hot import OneHot
from mana_dist.model.alignment.phases import PhaseAlignment
from mana_dist.model.mana import Mana
from mana_dist.ops import match_patches, one_hot_attention


class MatchError(NamedTuple):
    """Mean absolute differences between the centre frame and its neighbours, in grey levels (0 to 255).

    Attributes:
        matched: each pixel of the centre frame against the neighbours' pixels that it is matched with.
        in_place: against the neighbours' pixels at its own place.
    """

    matched: float
    in_place: float

    @property
    def ratio(self) -> float | None:
        """Return the error of matches over that without a search; None where nothing moves."""
        return self.matched / self.in_place if self.in_place else None


@torch.inference_mode()
def match_error(model: Mana, frames: Tensor) -> MatchError | None:
    """Measure how well a model's alignment matches, whatever the network makes of the matches.

    A pixel's grey level is the mean of its three channels. The centre frame's matches with itself do not count.

    Args:
        model: in evaluation mode.
        frames: a window, (1, T, 3, H, W) on the model's device, RGB in [0, 1]; T odd and at least 3, not
            necessarily the model's.

    Returns:
        The errors; None for an alignment that matches no single pixels: an average, or none.
    """
    grey = 255 * frames.mean(2)
    middle = grey.shape[1] // 2
    attention = model.attention
    if isinstance(attention, PhaseAlignment):
        matches = match_patches(frames, attention.search)
        places = (matches.y.long() * grey.shape[-1] + matches.x.long()).flatten(2)
        found = _others(grey, middle).flatten(2).gather(2, places).view_as(matches.y)
    elif isinstance(attention, CrossFrameAttention) and isinstance(attention.attend, OneHot):
        found = _others(_at_winners(model, frames, grey, attention.attend.window), middle)
    else:
        return None
    centre = grey[:, middle, None]
    return MatchError(*(float((seen - centre).abs().nanmean()) for seen in (found, _others(grey, middle))))


def _at_winners(model: Mana, frames: Tensor, grey: Tensor, window: int) -> Tensor:
    """Return the grey levels at the winning positions, (1, T, H, W); not a number where the score is zero."""
    feature, key, _ = model.embed(frames[0])
    query = model.attention.query(feature[frames.shape[1] // 2][None])
    missing = max(2 - query.shape[1], 0)  # channels for what is fetched
    query, key = (F.pad(tensor, [0, 0, 0, 0, 0, missing]) for tensor in (query, key[None]))
    # The operator gives score times value: with a value of one beside the grey level, their quotient is the level.
    value = torch.zeros_like(key)
    value[:, :, 0], value[:, :, 1] = grey, 1
    fetched = one_hot_attention(query, key, value, window)
    return fetched[:, :, 0] / fetched[:, :, 1]


def _others(grey: Tensor, middle: int) -> Tensor:
    return torch.cat([grey[:, :middle], grey[:, middle + 1 :]], 1)
