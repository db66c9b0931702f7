"""Validation while training: the picture that it shows."""

import numpy as np

from mana_dist.data.degradation import BI, degrade
from mana_dist.train.validation import _picture


def test_it_shows_the_part_in_which_bicubic_is_farthest_from_hr() -> None:
    """A checkerboard in one corner of a large grey frame: no bicubic upscaling brings it back."""
    hr = np.full((640, 1280, 3), 128, np.uint8)
    hr[400:480, 1000:1080] = 255 * (np.indices((80, 80)).sum(0) % 2)[..., None].astype(np.uint8)
    lr = degrade(hr, BI)
    picture = _picture(lr, hr, hr)
    height, width = picture.shape[:2]
    assert (height, width) < (420, 1400)
    panel = picture[-320:, -320:]  # of HR, enlarged twice
    assert (panel == 255).any()
    assert (panel == 0).any()
