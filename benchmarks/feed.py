"""Crops per second of the training feed, of a loader of one HDF5 file per sample, and of Ray Data.

``python -m benchmarks.feed --data SAMPLES [--folder DIR]`` for samples that are there.

All deliver batches of 16 random crops of 64x64 LR pixels (256x256 HR), flipped and transposed by the same code, to one
consumer that does nothing with them. The HDF5 loader is what MANA's authors published: a file per sample with seven HR
and seven LR frames, uncompressed and read whole, a DataLoader with one worker. The feed reads with two threads and
delivers the prescribed order; Ray Data delivers whatever order it reads in.

* warm: the files are in the page cache; rates are of pass after pass, the loaders taking turns.
* cold: the page cache is dropped before each pass over all samples; a pass is timed from opening the loader to the last
  batch, HDF5's worker being up already.
"""

import argparse
import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch.utils.data import DataLoader, Dataset

from benchmarks.report import Row, show
from mana_dist import ray_runtime
from mana_dist.config import DataConfig
from mana_dist.data import mixture
from mana_dist.data.degradation import BI, degrade
from mana_dist.data.feed import Feed, augment
from mana_dist.data.manifest import Manifest, load_manifest
from mana_dist.data.order import augmentation
from mana_dist.data.row_groups import RowGroups
from mana_dist.data.samples import Sample
from tests.data.written_dataset import write_dataset

BATCH, CROP, FRAMES = 16, 64, 7


@dataclass(frozen=True)
class Rates:
    """What a loader does.

    Attributes:
        name: the loader.
        rate: crops per second.
        core: seconds of a CPU core for each crop, workers' included; None where that was not counted.
        bytes: read from disks for each crop; None where that was not counted.
    """

    name: str
    rate: float
    core: float | None = None
    bytes: float | None = None


def main() -> None:
    """Print figures of samples that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of sample shards, all of one size", required=True)
    parser.add_argument("--seconds", type=float, default=10, help="measured time of each warm row")
    parser.add_argument("--passes", type=int, default=3, help="passes of each cold row")
    parser.add_argument("--folder", help="where to write, on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        show(measure(options.data, temporary, options.seconds, options.passes, with_ray=True))


def rows(small: bool) -> Iterator[Row]:
    """Made-up samples of Vimeo90K's size and of 720p, with Ray Data at the first."""
    sizes = {"448x256": 32} if small else {"448x256": 512, "1280x720": 64}
    for size, samples in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            data = make_samples(f"{folder}/samples", size, samples)
            with_ray = size == "448x256" and not small
            yield from measure(data, folder, 0.2 if small else 3, 1 if small else 2, with_ray=with_ray)


def measure(data: str, folder: str, seconds: float, passes: int, *, with_ray: bool) -> Iterator[Row]:
    """Measure everything on the samples at ``data``."""
    manifest = load_manifest(data)
    shard = manifest.shards[0]
    stored = sum(one.bytes for one in manifest.shards) / manifest.samples
    loader = hdf5_loader(data, manifest, f"{folder}/hdf5")
    kept = DataConfig(path=data, batch_size=BATCH, crop=CROP)
    # Windows of one row group: with more, they alone would hold all of so small a dataset.
    streaming = DataConfig(path=data, batch_size=BATCH, crop=CROP, cache_mb=0, shuffle_groups=1)
    on_disk = dataclasses.replace(streaming, disk_cache=f"{folder}/cache")

    def feed(config: DataConfig) -> Callable[[], Iterator[torch.Tensor]]:
        return lambda: feed_pass(config, manifest, manifest.samples // BATCH)

    groups = sum(shard.groups for shard in manifest.shards)
    while len(list(Path(folder).glob("cache/*.group"))) < groups:  # one pass may be too fast for the disk
        list(feed(on_disk)())

    warm = side_by_side(
        {
            "HDF5, one worker": endless(lambda: hdf5_pass(loader)),
            "feed, all decoded in each pass": feed_pass(streaming, manifest),
            "feed, decoded on the local disk": feed_pass(on_disk, manifest),
            "feed, up to 1 GiB kept (default)": feed_pass(kept, manifest),
        },
        seconds,
        # In so many batches whatever is to be kept has been read.
        warm_up=2 * manifest.samples // BATCH,
    )
    if with_ray:  # apart: Ray goes on working while nobody takes its batches, in processes that are not counted
        (ray_rates,) = side_by_side({"Ray Data, lazy": ray_batches(data, manifest)}, seconds, rounds=1, warm_up=2)
        warm.append(Rates(ray_rates.name, ray_rates.rate))
    cold = [
        cold_rates("HDF5, one worker", lambda: hdf5_pass(loader), f"{folder}/hdf5", passes),
        cold_rates("feed, all decoded in each pass", feed(streaming), data, passes),
        cold_rates("feed, decoded on the local disk", feed(on_disk), f"{folder}/cache", passes),
    ]
    for title, found in (("warm", warm), ("cold", cold)):
        reference = found[0]
        for rates in found:
            label = f"HR {4 * shard.width}x{4 * shard.height}, {title}: {rates.name}"
            yield Row(label, rates.rate, "crops/s", rates.rate / reference.rate, "HDF5")
            if rates.core and reference.core:
                yield Row(
                    f"{label}, processor", 1e3 * rates.core, "ms/crop", reference.core / rates.core, "less than HDF5"
                )
            if rates.bytes and title == "cold":
                text = "a sample's size in the shards"
                yield Row(f"{label}, read", rates.bytes / 1e6, "MB/crop", rates.bytes / stored, text)


def side_by_side(
    loaders: dict[str, Generator[torch.Tensor]], seconds: float, rounds: int = 5, warm_up: int = 100
) -> list[Rates]:
    """Each loader's rate, measured in turns, so that a busy machine slows all of them down.

    The first ``warm_up`` batches do not count, nor do the first tenth
    as many of each turn: some of them were prepared while the others had their turns.
    """
    meters = {name: Meter() for name in loaders}
    for batches in loaders.values():
        for _ in range(warm_up):
            next(batches)
    for _ in range(rounds):
        for name, batches in loaders.items():
            for _ in range(warm_up // 10):
                next(batches)
            with meters[name].running() as until:
                while until() < seconds / rounds:
                    meters[name].crops += len(next(batches))
    for batches in loaders.values():
        batches.close()
    return [meter.rates(name) for name, meter in meters.items()]


class Meter:
    """Counts crops, and what the machine spent for them while it was running."""

    def __init__(self) -> None:
        self.crops = 0
        self._seconds = self._core = 0.0
        self._bytes = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[], float]]:
        """Within, the meter runs; gives a function that tells for how many seconds."""
        seconds, core, read = time.perf_counter(), core_seconds(), disk_bytes()
        yield lambda: time.perf_counter() - seconds
        self._seconds += time.perf_counter() - seconds
        self._core += core_seconds() - core
        self._bytes += disk_bytes() - read

    def rates(self, name: str) -> Rates:
        """The figures for each crop."""
        return Rates(name, self.crops / self._seconds, self._core / self.crops, self._bytes / self.crops)


def cold_rates(name: str, one_pass: Callable[[], Iterator[torch.Tensor]], folder: str, passes: int) -> Rates:
    """The rate of passes that find nothing in the page cache."""
    meter = Meter()
    for _ in range(passes):
        drop_page_cache(folder)
        with meter.running():
            meter.crops += sum(len(batch) for batch in one_pass())
    return meter.rates(name)


def drop_page_cache(folder: str) -> None:
    """Have the system forget the contents of all files in ``folder``."""
    for path in Path(folder).iterdir():
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def disk_bytes() -> int:
    """Bytes that this process and its workers have had read from disks so far (Linux)."""
    lines = [line for process in _processes() for line in Path(f"/proc/{process}/io").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def core_seconds() -> float:
    """Time that this process and its workers have had a CPU core so far (Linux)."""
    fields = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in _processes()]
    return sum(int(field) for line in fields for field in line[11:13]) / os.sysconf("SC_CLK_TCK")


def _processes() -> list[int | None]:
    return [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]


def endless(one_pass: Callable[[], Iterator[torch.Tensor]]) -> Generator[torch.Tensor]:
    """Pass after pass."""
    while True:
        yield from one_pass()


def feed_pass(config: DataConfig, manifest: Manifest, batches: int | None = None) -> Generator[torch.Tensor]:
    """The training feed's first ``batches``, or all: one worker."""
    assert config.path is not None
    with Feed([mixture.Dataset(config.path, manifest)], config, FRAMES, 0, rank=0, world_size=1, start_step=0) as feed:
        while batches is None or batches > 0:
            yield next(feed).lr
            batches = None if batches is None else batches - 1


class HdfSamples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One HDF5 file per sample, as the authors of MANA have it."""

    def __init__(self, folder: str, samples: int) -> None:
        self._folder, self._samples = folder, samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        import h5py

        with h5py.File(f"{self._folder}/{index}.h5", "r") as file:
            lr, hr = file["LR"][:], file["HR"][:]
        drawn = augmentation(0, np.random.randint(2**31), lr.shape[1], lr.shape[2], CROP)  # noqa: NPY002  # no state
        cropped = augment(lr, hr[FRAMES // 2], drawn, CROP)
        return torch.from_numpy(cropped[0].copy()), torch.from_numpy(cropped[1].copy())


def hdf5_loader(data: str, manifest: Manifest, folder: str) -> "DataLoader[tuple[torch.Tensor, torch.Tensor]]":
    """The same samples as HDF5 files, and a loader of them. The shards lack six of the HR frames: the centre again."""
    import h5py

    os.mkdir(folder)
    written = 0
    with RowGroups([mixture.Dataset(data, manifest)], least=1, budget=0) as groups:
        for number in range(len(groups.rows)):
            group = groups[number]
            for lr, hr in zip(group.lr, group.hr, strict=True):
                with h5py.File(f"{folder}/{written}.h5", "w") as file:
                    file["LR"], file["HR"] = lr, np.broadcast_to(hr, (FRAMES, *hr.shape))
                written += 1
    return DataLoader(HdfSamples(folder, written), BATCH, shuffle=True, num_workers=1, persistent_workers=True)


def hdf5_pass(loader: "DataLoader[tuple[torch.Tensor, torch.Tensor]]") -> Iterator[torch.Tensor]:
    """One pass over all samples."""
    for lr, _ in loader:
        yield lr


def ray_batches(data: str, manifest: Manifest) -> Generator[torch.Tensor]:
    """Ray Data reads, crops in its tasks and iterates, pass after pass."""
    ray_runtime.start_ray()
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    files = [f"{data}/{shard.path}" for shard in manifest.shards]
    lr_shape, hr_shape = manifest.shapes(manifest.shards[0])
    crop = functools.partial(_crop, lr_shape=lr_shape, hr_shape=hr_shape)
    dataset = ray.data.read_parquet(files).select_columns(["lr", "hr"]).map_batches(crop, batch_size=BATCH)
    with contextlib.ExitStack() as stack:
        stack.callback(ray.shutdown)
        while True:
            for batch in dataset.iter_torch_batches(batch_size=BATCH, prefetch_batches=4):
                yield batch["lr"]


def _crop(
    batch: dict[str, NDArray[np.object_]], lr_shape: tuple[int, ...], hr_shape: tuple[int, ...]
) -> dict[str, NDArray[np.uint8]]:
    lrs, hrs = [], []
    for number, values in enumerate(zip(batch["lr"], batch["hr"], strict=True)):
        flat_lr, flat_hr = (np.frombuffer(value, np.uint8) for value in values)
        lr, hr = flat_lr.reshape(lr_shape), flat_hr.reshape(hr_shape)
        cropped = augment(lr, hr, augmentation(0, number, lr.shape[1], lr.shape[2], CROP), CROP)
        lrs.append(cropped[0])
        hrs.append(cropped[1])
    return {"lr": np.stack(lrs), "hr": np.stack(hrs)}


def make_samples(folder: str, size: str, samples: int) -> str:
    """A dataset that is about as hard to compress as films are: windows that drift over 1/f noise, with some grain."""
    width, height = map(int, size.split("x"))
    rng = np.random.default_rng(0)
    scene = _pink_noise(rng, height + 2 * samples // 4 + 64, width + 64)

    def frame(number: int) -> NDArray[np.uint8]:
        top, left = (number // 2) % (scene.shape[0] - height), (7 * number // 3) % 64
        grain = np.random.default_rng(number).normal(0, 1.5, (height, width, 1))
        return np.clip(scene[top : top + height, left : left + width] + grain, 0, 255).astype(np.uint8)

    def made() -> Iterator[Sample]:
        frames = [frame(number) for number in range(FRAMES - 1)]
        lrs = [degrade(one, BI) for one in frames]
        for number in range(FRAMES - 1, samples + FRAMES - 1):
            frames.append(frame(number))
            lrs.append(degrade(frames[-1], BI))
            yield Sample(np.stack(lrs[-FRAMES:]), frames[-1 - FRAMES // 2], number - FRAMES // 2, 0.0)
            frames, lrs = frames[1:], lrs[1:]

    write_dataset(folder, made(), clip="noise", frames=FRAMES)
    return folder


def _pink_noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """(height, width, 3), grey levels around 128, with the spectrum that pictures have."""
    frequency = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    planes = [fft.irfft2(fft.rfft2(rng.normal(size=(height, width))) / frequency, (height, width)) for _ in range(2)]
    planes = [plane / plane.std() for plane in planes]
    colours = [planes[0] + weight * planes[1] for weight in (-0.2, 0.0, 0.2)]
    return (128 + 45 * np.stack(colours, axis=-1)).astype(np.float32)


if __name__ == "__main__":
    main()
