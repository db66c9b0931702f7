"""Windows of frames to train and validate on: from the file that ``benchmarks.gpu.pack`` writes, or made up.

The file is an ``.npz`` of about 55 MB: chunks of samples, each sample's pixels predicted from their neighbours (green
from the pixels above and to the left, red and blue from green as well), and what is left compressed by LZMA, which
Python has everywhere.
"""

import json
import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mana_dist.data.order import Augmentation, SampleOrder, augmentation

CHUNK = 16
"""Samples of a chunk; a chunk is what a row group is to the order of samples."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Windows:
    """Samples of one size.

    Attributes:
        lr: (n, T, h, w, 3) uint8.
        hr: (n, 4h, 4w, 3) uint8, the centre frames.
        clips: the name of each sample's clip.
    """

    lr: Pixels
    hr: Pixels
    clips: tuple[str, ...]


@dataclass(frozen=True)
class Footage:
    """What is trained and validated on.

    Attributes:
        training: samples.
        validation: samples of other clips.
        source: in words.
    """

    training: Windows
    validation: Windows
    source: str


def compressed(pixels: Pixels) -> bytes:
    """Return pixels (..., h, w, 3) as bytes."""
    planes = np.moveaxis(pixels, -1, -3).copy()
    planes[..., 0, :, :] -= planes[..., 1, :, :]
    planes[..., 2, :, :] -= planes[..., 1, :, :]
    planes[..., 1:, :] -= planes[..., :-1, :].copy()
    planes[..., 1:] -= planes[..., :-1].copy()
    return lzma.compress(planes.tobytes(), format=lzma.FORMAT_RAW, filters=_FILTERS)


def decompressed(data: bytes, shape: tuple[int, ...]) -> Pixels:
    """Return the pixels of ``shape`` (..., h, w, 3) that :func:`compressed` was given."""
    raw = lzma.decompress(data, format=lzma.FORMAT_RAW, filters=_FILTERS)
    planes = np.frombuffer(raw, np.uint8).reshape(*shape[:-3], 3, *shape[-3:-1])
    planes = planes.cumsum(-1, dtype=np.uint8).cumsum(-2, dtype=np.uint8)
    planes[..., 0, :, :] += planes[..., 1, :, :]
    planes[..., 2, :, :] += planes[..., 1, :, :]
    return np.ascontiguousarray(np.moveaxis(planes, -3, -1))


def write(path: Path, footage: Footage) -> None:
    """Write a file that :func:`read` reads."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"source": footage.source}
    for name, windows in (("training", footage.training), ("validation", footage.validation)):
        about[name] = {"lr": windows.lr.shape[1:], "hr": windows.hr.shape[1:], "clips": windows.clips}
        for number in range(-(-len(windows.lr) // CHUNK)):
            rows = slice(number * CHUNK, (number + 1) * CHUNK)
            for kind, pixels in (("lr", windows.lr[rows]), ("hr", windows.hr[rows])):
                arrays[f"{name}_{kind}_{number}"] = np.frombuffer(compressed(pixels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    partial.replace(path)


def read(path: Path) -> Footage:
    """Return what a file holds; decompresses with all cores."""
    with np.load(path) as file, ThreadPoolExecutor(os.cpu_count()) as executor:
        about = json.loads(bytes(file["about"]))

        def windows(name: str) -> Windows:
            clips = tuple(about[name]["clips"])
            sizes = [min(CHUNK, len(clips) - first) for first in range(0, len(clips), CHUNK)]
            parts = {
                kind: list(
                    executor.map(
                        decompressed,
                        [bytes(file[f"{name}_{kind}_{number}"]) for number in range(len(sizes))],
                        [(size, *about[name][kind]) for size in sizes],
                    )
                )
                for kind in ("lr", "hr")
            }
            return Windows(np.concatenate(parts["lr"]), np.concatenate(parts["hr"]), clips)

        return Footage(windows("training"), windows("validation"), about["source"])


def made_up(samples: int, frames: int, side: int) -> Footage:
    """Return textures that drift by fractions of a pixel: enough to train on, and to see the loss fall."""

    def windows(count: int, seed: int) -> Windows:
        generator = torch.Generator().manual_seed(seed)
        size, lrs, hrs = 4 * side, [], []
        for _ in range(count):
            noise = torch.randn(1, 3, size + 64, size + 64, generator=generator)
            # Several sizes of blobs, as pictures have.
            texture = sum(
                F.interpolate(F.avg_pool2d(noise, step) * step, (size + 64, size + 64), mode="bicubic")
                for step in (2, 4, 8, 16)
            )
            texture = (torch.as_tensor(texture) * 24 + 128).clamp(0, 255)
            speed = torch.rand(2, generator=generator) * 6 - 3
            views = []
            for frame in range(frames):
                down, right = (32 + speed * (frame - frames // 2)).round().int().tolist()
                views.append(texture[0, :, down : down + size, right : right + size])
            video = torch.stack(views)
            lrs.append(F.avg_pool2d(video, 4).round().byte().movedim(1, -1).numpy())
            hrs.append(video[frames // 2].round().byte().movedim(0, -1).numpy())
        return Windows(np.stack(lrs), np.stack(hrs), ("made-up",) * count)

    return Footage(windows(samples, 0), windows(max(2, samples // 8), 1), "made-up textures")


class Batches:
    """The batches that the product's order prescribes, from samples that lie on the device.

    Args:
        windows: the samples.
        frames: T of the model; the samples' centre T are given.
        batch_size: slots of a batch.
        crop: side of the LR crop.
        seed: the run's seed.
        device: where they lie.
        shuffle_groups: chunks to a shuffle window.
    """

    def __init__(
        self,
        windows: Windows,
        frames: int,
        batch_size: int,
        crop: int,
        seed: int,
        device: torch.device,
        shuffle_groups: int = 4,
    ) -> None:
        first = (windows.lr.shape[1] - frames) // 2
        self._lr = torch.from_numpy(windows.lr[:, first : first + frames]).to(device).movedim(-1, -3)
        self._hr = torch.from_numpy(windows.hr).to(device).movedim(-1, -3)
        count = len(windows.lr)
        rows = np.array([min(CHUNK, count - start) for start in range(0, count, CHUNK)], dtype=np.int64)
        self._order = SampleOrder(rows, batch_size, shuffle_groups, seed)
        self._batch_size, self._crop, self._seed = batch_size, crop, seed

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return global step ``step``'s LR (B, T, 3, crop, crop) and HR (B, 3, 4 crop, 4 crop), uint8."""
        height, width = self._lr.shape[-2:]
        lrs, hrs = [], []
        for slot in range(self._batch_size):
            group, row = self._order.sample(step, slot)
            index = group * CHUNK + row
            drawn = augmentation(self._seed, step * self._batch_size + slot, height, width, self._crop)
            lrs.append(augmented(self._lr[index], drawn, self._crop, 1))
            hrs.append(augmented(self._hr[index], drawn, self._crop, 4))
        return torch.stack(lrs), torch.stack(hrs)


def augmented(frames: Tensor, drawn: Augmentation, crop: int, scale: int) -> Tensor:
    """Return frames (..., h, w) cropped, flipped and transposed, as :func:`mana_dist.data.feed.augment` does."""
    top, left, side = drawn.top * scale, drawn.left * scale, crop * scale
    frames = frames[..., top : top + side, left : left + side]
    dims = [dim for dim, flipped in ((-2, drawn.flip_vertical), (-1, drawn.flip_horizontal)) if flipped]
    frames = frames.flip(dims) if dims else frames
    return frames.mT if drawn.transpose else frames
