"""Crops per second: the pyarrow feed in the worker against Ray Data's batches of the same shards.

``python -m benchmarks.feed [--data SAMPLES] [--seconds 10]``. Without ``--data``, 96 samples of noise at 1280x720.

Both deliver batches of augmented uint8 tensors to one consumer that does nothing with them. Ray Data delivers whatever
order it reads in; the feed delivers the prescribed one.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import torch

from mana_dist import ray_runtime
from mana_dist.config import DataConfig
from mana_dist.data.feed import Feed, augment
from mana_dist.data.manifest import load_manifest
from mana_dist.data.order import augmentation
from mana_dist.data.samples import Sample, write_dataset

BATCH, CROP, FRAMES = 8, 32, 7


def main() -> None:
    """Print the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of sample shards")
    parser.add_argument("--seconds", type=float, default=10, help="measured time of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or make_samples(temporary)
        kept = rate(feed_batches(data, cache_mb=1024), options.seconds)
        windows = rate(feed_batches(data, cache_mb=0), options.seconds)
        theirs = rate(ray_batches(data), options.seconds)
    print("                                     crops/s    ratio to Ray Data")
    print(f"feed, samples kept up to 1 GiB     {kept:9.1f}    {kept / theirs:9.1f}")
    print(f"feed, shuffle windows alone kept   {windows:9.1f}    {windows / theirs:9.1f}")
    print(f"Ray Data, lazy                     {theirs:9.1f}    {1:9.1f}")


def rate(batches: Iterator[torch.Tensor], seconds: float) -> float:
    """Crops per second over ``seconds``, the first two batches (start-up) left out."""
    next(batches)
    next(batches)
    crops, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        crops += len(next(batches))
    return crops / (time.perf_counter() - start)


def feed_batches(data: str, cache_mb: int) -> Iterator[torch.Tensor]:
    """The training feed, one worker."""
    config = DataConfig(path=data, batch_size=BATCH, crop=CROP, cache_mb=cache_mb)
    with Feed(data, load_manifest(data), config, FRAMES, 0, rank=0, world_size=1, start_step=0) as feed:
        for batch in feed:
            yield batch.lr


def ray_batches(data: str) -> Iterator[torch.Tensor]:
    """Ray Data reads, crops in its tasks and iterates, pass after pass."""
    ray_runtime.start_ray()
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    files = [f"{data}/{shard.path}" for shard in load_manifest(data).shards]
    dataset = ray.data.read_parquet(files).select_columns(["lr", "hr"]).map_batches(_crop, batch_size=BATCH)
    while True:
        for batch in dataset.iter_torch_batches(batch_size=BATCH, prefetch_batches=4):
            yield batch["lr"]


def _crop(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    lrs, hrs = [], []
    for number, (lr, hr) in enumerate(zip(batch["lr"], batch["hr"], strict=True)):
        cropped = augment(lr, hr, augmentation(0, number, lr.shape[1], lr.shape[2], CROP), CROP)
        lrs.append(cropped[0])
        hrs.append(cropped[1])
    return {"lr": np.stack(lrs), "hr": np.stack(hrs)}


def make_samples(folder: str, samples: int = 96, height: int = 180, width: int = 320) -> str:
    """A dataset of noise (which does not compress: the hardest to read)."""
    rng = np.random.default_rng(0)

    def sample(index: int) -> Sample:
        lr = rng.integers(0, 256, (FRAMES, height, width, 3), dtype=np.uint8)
        return Sample(lr, rng.integers(0, 256, (4 * height, 4 * width, 3), dtype=np.uint8), index, 0.0)

    write_dataset(folder, map(sample, range(samples)), clip="noise", frames=FRAMES)
    return folder


if __name__ == "__main__":
    main()
