"""An encoder of its own for each segment."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mana_dist.upscale.config import CODECS, Codec, Settings
from mana_dist.upscale.encode import INDEX_BASE, Encoder, suffix_of
from mana_dist.video.colours import Colours


@pytest.mark.parametrize("codec", [name for name in CODECS if name != "png"])  # pictures are joined by their order
def test_segments_of_few_frames_keep_them_all_in_order(tmp_path: Path, codec: Codec) -> None:
    """x265, which looks ahead, gives decoding times from memory that nobody wrote where there are fewer frames."""
    settings = Settings(codec)
    for count in (1, 2, 3, 4) * 4:
        path = str(tmp_path / f"segment{suffix_of(settings)}")
        encoder = Encoder(path, settings, 8, Fraction(25), Colours(1, False, 1, 1), Fraction(1))
        for grey in np.linspace(0, 255, count):
            encoder.add(np.full((128, 128, 3), grey, np.uint8))
        encoder.finish()
        with av.open(path) as container:
            frames = list(container.decode(video=0))
        assert [frame.pts * frame.time_base / INDEX_BASE for frame in frames] == list(range(count))
