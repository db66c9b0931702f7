"""How unlike the centre frame is what an alignment finds in its neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor

from mana_dist.model.alignment.cross_frame import neighbours
from mana_dist.model.mana import Mana


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
    feature, key, _ = model.embed_windows(frames)
    found = model.attention.at_matches(grey, model.attention.query(feature), key)
    if found is None:
        return None
    centre = grey[:, grey.shape[1] // 2, None]
    return MatchError(*(float((seen - centre).abs().nanmean()) for seen in (found, neighbours(grey))))
