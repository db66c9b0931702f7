"""A small sample dataset, made without the ingest."""

import numpy as np

from mana_dist.data.samples import Sample
from tests.data.written_dataset import write_dataset


def make_dataset(folder: str, samples: int, side: int = 16, frames: int = 7, scale: int = 4) -> None:
    """``samples`` windows of smooth noise, ``side`` LR pixels square, in row groups of four."""
    rng = np.random.default_rng(samples)
    hr = rng.integers(0, 256, (samples, side, side, 3)).repeat(scale, 1).repeat(scale, 2).astype(np.uint8)
    raw = frames * side * side * 3 + hr[0].nbytes
    windows = (np.broadcast_to(one[::scale, ::scale], (frames, side, side, 3)) for one in hr)
    made = (Sample(lr, one, centre, 0.0) for centre, (lr, one) in enumerate(zip(windows, hr, strict=True)))
    write_dataset(folder, made, clip="noise", frames=frames, scale=scale, group_bytes=4 * raw)
