"""A small sample dataset, made without the ingest."""

import numpy as np

from mana_dist.data.samples import Manifest, Sample, ShardWriter, save_manifest


def make_dataset(folder: str, samples: int, side: int = 16, frames: int = 7) -> None:
    """``samples`` windows of smooth noise, ``side`` LR pixels square, in row groups of four."""
    rng = np.random.default_rng(samples)
    hr = rng.integers(0, 256, (samples, side, side, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    raw = frames * side * side * 3 + hr[0].nbytes
    writer = ShardWriter(folder, stem="noise", clip="noise", source="noise", group_bytes=4 * raw)
    for index in range(samples):
        writer.add(Sample(np.broadcast_to(hr[index, ::4, ::4], (frames, side, side, 3)), hr[index], index, 0.0))
    shards = writer.close()
    save_manifest(
        folder,
        Manifest(
            degradation="BI",
            degradation_version=1,
            scale=4,
            frames=frames,
            stride=1,
            start=0,
            stop=None,
            samples=samples,
            shards=shards,
            sources=(),
            rejected=(),
        ),
    )
