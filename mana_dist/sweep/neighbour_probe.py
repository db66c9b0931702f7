"""What the neighbour frames of a dataset's samples are worth, in a minute and without training.

HR is predicted linearly from the centre frame's neighbourhood, with and without what matching and sorting by phase
(:mod:`mana_dist.ops.phases`) take from the neighbour frames. Each clip is predicted by a fit to all others. The gain
says which clips teach a network to use its neighbours, and which settings of the search find most.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.data.manifest import load_manifest
from mana_dist.data.order import evenly_spaced
from mana_dist.data.shard_reader import ShardReader
from mana_dist.errors import UserError
from mana_dist.ops import Search, match_patches, sort_by_phase

_SIDE = 9  # of the centre frame's neighbourhood
_BORDER = 6  # LR pixels that are left out, whose neighbourhoods are made up in part
_RIDGE = 1e-2


class ProbedSample(NamedTuple):
    """A sample of a clip: LR (T, h, w, 3) and HR, uint8."""

    clip: str
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


class _Sums(NamedTuple):
    """What a linear fit to some pixels needs: of their inputs X and targets Y, X'X, X'Y, Y'Y, and their number."""

    inputs: Tensor
    both: Tensor
    targets: Tensor
    pixels: int


def neighbour_gains(samples: Iterable[ProbedSample], search: Search, hood: int = 5, bins: int = 2) -> dict[str, float]:
    """Return for each clip how much better its HR is predicted with its neighbours, dB.

    Args:
        samples: of two clips or more.
        search: how matches are looked for.
        hood: side of the matched neighbourhoods that are sorted.
        bins: parts of a pixel along each axis.

    Raises:
        ValueError: they are of one clip alone.
    """
    clips: dict[str, list[_Sums]] = {}
    for clip, lr, hr in samples:
        clips.setdefault(clip, []).append(_sums(*_pixels(lr, hr, search, hood, bins)))
    if len(clips) < 2:
        raise ValueError("all samples are of one clip; the probe needs another to be fitted to")
    totals = {clip: _total(of) for clip, of in clips.items()}
    gains = {}
    for clip, own in totals.items():
        others = _total([of for name, of in totals.items() if name != clip])
        without, with_neighbours = (_error(own, others, count) for count in (_SIDE**2 + 1, len(own.inputs)))
        gains[clip] = 10 * math.log10(without / with_neighbours)
    return gains


def _pixels(
    lr: NDArray[np.uint8], hr: NDArray[np.uint8], search: Search, hood: int, bins: int
) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a sample's pixels, float64: a one, the centre's neighbourhood, the neighbours."""
    frames = torch.from_numpy(lr).float().mean(-1)[None, :, None] / 255
    grey = frames[:, frames.shape[1] // 2]
    scale = hr.shape[0] // lr.shape[1]
    target = F.pixel_unshuffle(torch.from_numpy(hr).float().mean(-1)[None, None] / 255, scale) - grey
    padded = F.pad(grey, [_SIDE // 2] * 4, mode="replicate")
    centre = F.unfold(padded, _SIDE).unflatten(-1, grey.shape[-2:]) - grey
    coloured = frames.expand(-1, -1, 3, -1, -1)
    found = sort_by_phase(coloured, match_patches(coloured, search), hood, bins)
    averages = found[:, : -(bins**2)].unflatten(1, (bins**2, 3, hood**2))[:, :, 0].flatten(1, 2)  # of the one grey
    inputs = torch.cat([torch.ones_like(grey), centre, averages, found[:, -(bins**2) :]], 1)
    inner = (0, slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    return inputs[inner].flatten(1).T.double(), target[inner].flatten(1).T.double()


def _sums(inputs: Tensor, targets: Tensor) -> _Sums:
    return _Sums(inputs.T @ inputs, inputs.T @ targets, targets.square().sum(), len(inputs))


def _total(parts: Sequence[_Sums]) -> _Sums:
    inputs, both, targets, pixels = zip(*parts, strict=True)
    return _Sums(torch.stack(inputs).sum(0), torch.stack(both).sum(0), torch.stack(targets).sum(0), sum(pixels))


def _error(own: _Sums, others: _Sums, count: int) -> float:
    """Return the mean squared error on a clip of the others' fit by the first ``count`` inputs."""
    gram = others.inputs[:count, :count] + _RIDGE * torch.eye(count, dtype=torch.float64)
    weights = torch.linalg.solve(gram, others.both[:count])
    predicted = (weights.T @ own.inputs[:count, :count] @ weights).trace()
    return float(own.targets - 2 * (weights * own.both[:count]).sum() + predicted) / own.pixels


def main(arguments: Sequence[str]) -> None:
    """Print the gain of each clip of a dataset, and of all.

    Raises:
        UserError: bad usage, no such dataset, or of one clip alone.
    """
    parser = Parser(
        prog="tune/probe_neighbours.py",
        description="What a dataset's neighbour frames are worth, by a linear probe: dB for each clip.",
    )
    add, usual = parser.add_argument, Search()
    add("dataset", metavar="URI", help="sample shards that mana ingest wrote")
    add("--samples", type=int, default=12, metavar="N", help="of each clip, evenly spaced (12)")
    for name, meaning in (
        ("patch", "side of the patches that are compared"),
        ("window", "side of the square that is searched"),
        ("coarse_window", "the same at a quarter of the size; 0: no coarse search"),
    ):
        add(f"--{name}", type=int, default=getattr(usual, name), metavar="N", help=f"{meaning} (%(default)s)")
    add("--hood", type=int, default=5, metavar="N", help="side of the neighbourhoods that are sorted (5)")
    add("--bins", type=int, default=2, metavar="N", help="parts of a pixel along each axis (2)")
    options = parser.parse_args(arguments)
    try:
        search = Search(patch=options.patch, window=options.window, coarse_window=options.coarse_window)
        gains = neighbour_gains(
            read_samples(storage.resolve(options.dataset), options.samples), search, options.hood, options.bins
        )
    except ValueError as error:
        raise UserError(f"{options.dataset}: {error}") from error
    width = max(map(len, gains))
    for clip, gain in sorted(gains.items(), key=lambda item: -item[1]):
        print(f"{clip:{width}} {gain:+.3f} dB")
    print(f"{'mean of clips':{width}} {sum(gains.values()) / len(gains):+.3f} dB")


def read_samples(uri: str, each: int) -> Iterator[ProbedSample]:
    """Yield up to ``each`` samples of each clip of a dataset, evenly spaced over its rows."""
    manifest = load_manifest(uri)
    reader = ShardReader(uri, manifest)
    of_clip: dict[str, list[tuple[int, int, int]]] = {}
    for number, shard in enumerate(manifest.shards):
        for row, clip in enumerate(reader.column(shard, "clip").to_pylist()):
            of_clip.setdefault(clip, []).append((number, *divmod(row, shard.group_rows)))
    for clip, places in of_clip.items():
        for number, group, row in (places[index] for index in evenly_spaced(each, len(places))):
            read = reader.read(manifest.shards[number], group)
            yield ProbedSample(clip, read.lr[row], read.hr[row])
