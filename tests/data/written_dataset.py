"""A whole dataset of samples that a test made itself."""

import dataclasses
from collections.abc import Iterable

from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BI, Degradation
from mana_dist.data.manifest import Manifest, find_manifest, save_manifest
from mana_dist.data.samples import GROUP_BYTES, Sample, ShardWriter
from mana_dist.errors import UserError


def write_dataset(
    folder: str,
    samples: Iterable[Sample],
    *,
    clip: str,
    frames: int = 7,
    scale: int = 4,
    group_bytes: int = GROUP_BYTES,
    degradation: Degradation = BI,
) -> Manifest:
    """Write ``samples`` of any origin as a whole dataset to train on: shards, then the manifest.

    Args:
        folder: URI of the dataset; holds none yet.
        samples: all of one size; taken one by one.
        clip: name of their origin, for the columns ``clip`` and ``source``.
        frames: LR frames per sample (T).
        scale: HR side over LR side.
        group_bytes: raw size of a row group, the unit of reading and of shuffling.
        degradation: the degradation that made their LR frames.

    Returns:
        The manifest as written.

    Raises:
        UserError: there is a dataset already, or a sample has other shapes than these settings or the first one.
    """
    if find_manifest(folder) is not None:
        raise UserError(f"{folder}: holds a sample dataset already; name another folder")
    with ShardWriter(folder, stem="samples", unit=clip, group_bytes=group_bytes) as writer:
        shape: tuple[int, ...] | None = None
        for number, sample in enumerate(samples):
            shape = shape or (frames, *sample.lr.shape[1:])
            if sample.lr.shape != shape or sample.hr.shape != (scale * shape[1], scale * shape[2], 3):
                raise UserError(
                    f"sample {number}: lr {sample.lr.shape} and hr {sample.hr.shape} do not fit; lr must be "
                    f"({frames}, h, w, 3), hr ({scale}h, {scale}w, 3), with one h and w for all samples"
                )
            writer.add(sample, clip=clip, source=clip)
        shards = writer.close()
    settings = SampleSettings(
        degradation=degradation,
        scale=scale,
        frames_per_sample=frames,
        detect_cuts=False,
        min_change=0,
        min_detail=0,
    )
    manifest = dataclasses.replace(
        settings.empty_manifest(), samples=sum(shard.rows for shard in shards), clips=1, shards=shards
    )
    save_manifest(folder, manifest)
    return manifest
