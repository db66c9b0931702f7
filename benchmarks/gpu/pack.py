"""Pack samples of real clips into the one file that the GPU script takes with it.

``python -m benchmarks.gpu.pack --training SAMPLES [...] --validation SAMPLES [...] [--megabytes 55] [--out FILE]``.
SAMPLES are folders that ``mana ingest --patch 64`` wrote, all of one size of patch. Clips take turns, each with its
samples evenly spaced, until the file is full.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gpu.__main__ import DATA
from benchmarks.gpu.clips import CHUNK, Footage, Windows, compressed, write
from mana_dist.data.samples import pixels

_VALIDATION = 24
"""Validation samples, which take time at every look."""


class Place(NamedTuple):
    """A sample's shard, row and clip."""

    shard: Path
    row: int
    clip: str


def main() -> None:
    """Write the file, and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description=__doc__.splitlines()[0])
    parser.add_argument("--training", nargs="+", type=Path, required=True, help="folders of samples")
    parser.add_argument("--validation", nargs="+", type=Path, required=True, help="folders of samples of other clips")
    parser.add_argument("--megabytes", type=float, default=55, help="largest size of the file")
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    validation = load(in_turns(options.validation)[:_VALIDATION])
    places = in_turns(options.training)
    # Every sixteenth sample says how well the clips compress.
    probe = load(places[:: max(1, len(places) // (2 * CHUNK))][: 2 * CHUNK])
    one = (len(compressed(probe.lr)) + len(compressed(probe.hr))) / len(probe.lr)
    count = min(len(places), int(0.97 * options.megabytes * 1e6 / one) - len(validation.lr))
    training = load(places[:count])
    names = len(set(training.clips))
    write(options.out, Footage(training, validation, f"{names} real clips, and {len(set(validation.clips))} others"))
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB, {count} samples of {names} clips, {len(validation.lr)} to validate on")


def in_turns(folders: Iterable[Path]) -> list[Place]:
    """Return all samples, the first of every clip before the second of any; a clip's in an order that spreads them."""
    clips: dict[str, list[Place]] = defaultdict(list)
    for folder in folders:
        for shard in sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("sources-")):
            for row, clip in enumerate(pq.read_table(shard, columns=["clip"])["clip"].to_pylist()):
                clips[clip].append(Place(shard, row, clip))
    columns = [[clip[index] for index in spread(len(clip))] for clip in clips.values()]
    rounds = itertools.zip_longest(*columns)
    return [place for places in rounds for place in places if place is not None]


def spread(count: int) -> Sequence[int]:
    """Return 0 to ``count`` - 1 so that those before any place are about evenly spaced: by the golden ratio."""
    positions = (np.arange(count) * 0.6180339887498949) % 1
    return np.argsort(np.argsort(positions)).tolist()


def load(places: Sequence[Place]) -> Windows:
    """Return the samples at ``places``, each shard opened once."""
    lr: dict[Place, np.ndarray] = {}
    hr: dict[Place, np.ndarray] = {}
    for shard in {place.shard for place in places}:
        wanted = [place for place in places if place.shard == shard]
        table = pq.read_table(shard, columns=["lr", "hr"]).take(pa.array([place.row for place in wanted]))
        for place, one, other in zip(wanted, pixels(table, "lr"), pixels(table, "hr"), strict=True):
            lr[place], hr[place] = one, other
    clips = tuple(place.clip for place in places)
    return Windows(np.stack([lr[place] for place in places]), np.stack([hr[place] for place in places]), clips)


if __name__ == "__main__":
    main()
