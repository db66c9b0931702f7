"""Patch matching and sorting by phase on a CPU: ``phases_cpu.c``."""

import ctypes
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mana_dist.ops.compiled import library, loaded, share
from mana_dist.ops.patches import Matches, Search, levels, normalisers

# What phases_cpu.c reads beyond the frame: patches above and below; patches, cells and whole registers aside.
_EDGE = 8
_MARGIN = 32


def available() -> bool:
    """Return whether :func:`match` and :func:`sort` can run; where not, the first call logs why."""
    return library() is not None


def match(frames: Tensor, search: Search) -> Matches:
    """As :func:`mana_dist.ops.match_patches` defines it; frames are float32."""
    batch, count, _, height, width = frames.shape
    shape = (batch, count - 1, height, width)
    places, floats = ([torch.empty(shape, dtype=dtype) for _ in range(3)] for dtype in (torch.int32, torch.float32))
    found = Matches(floats[0], *places[:2], *floats[1:])
    settings = _Search(count, search.patch, search.window, search.coarse_window, search.refine)
    grey, small = levels(frames, search)
    for entry in range(batch):
        coarse = None if small is None else _Level(small[entry], search.patch)
        into = _Matches(*(tensor[entry].data_ptr() for tensor in found))
        _match_entry(_Level(grey[entry], search.patch), coarse, settings, into)
    return found


def sort(frames: Tensor, matches: Matches, hood: int, bins: int, top: int) -> Tensor:
    """As :func:`mana_dist.ops.sort_by_phase` defines it; frames are float32."""
    batch, count = frames.shape[:2]
    rows, columns = matches.score.shape[-2:]
    matches = Matches(*(tensor.contiguous() for tensor in matches))
    out = torch.empty(batch, rows, columns, bins * bins * (3 * hood * hood + 1))
    padded = _padded(frames)
    strides = padded.stride()[1:4]
    for entry in range(batch):
        first = padded[entry, 0, 0, _EDGE:, _MARGIN:].data_ptr()
        found = _Matches(*(tensor[entry].data_ptr() for tensor in matches))
        arguments = first, *strides, count, top, rows, columns, found, hood, bins
        work = functools.partial(_sort_rows, arguments, out[entry].data_ptr())
        share(work, rows, out[entry].numel() * count)
    return out.permute(0, 3, 1, 2)


def _match_entry(fine: "_Level", coarse: "_Level | None", search: "_Search", found: "_Matches") -> None:
    """Match the frames of one batch entry."""
    offsets = None if coarse is None else _coarse_offsets(coarse, search)
    views, kernels = (fine.view, coarse and coarse.view), _library()
    address = None if offsets is None else offsets.data_ptr()

    def work(begin: int, end: int) -> None:
        scratch = torch.empty(4, fine.view.row)
        kernels.phases_match(*views, search, begin, end, address, found, scratch.data_ptr())

    units = (search.frames - 1) * fine.view.height
    shifts = search.window**2 + (4 * search.refine**2 if coarse else 0)
    share(work, units, units * fine.view.width * shifts * search.patch)


def _sort_rows(arguments: tuple[Any, ...], out: int, begin: int, end: int) -> None:
    _library().phases_sort(*arguments, begin, end, out)


def _coarse_offsets(level: "_Level", search: "_Search") -> Tensor:
    """The offsets of the best coarse matches, down and right: (T - 1, h, w, 2) int32."""
    view, kernels = level.view, _library()
    offsets = torch.empty(search.frames - 1, view.height, view.width, 2, dtype=torch.int32)

    def work(begin: int, end: int) -> None:
        scratch = torch.empty(3, view.row)
        kernels.phases_coarse(view, search, begin, end, offsets.data_ptr(), scratch.data_ptr())

    share(work, (search.frames - 1) * view.height, offsets.numel() * search.coarse_window**2 * search.patch)
    return offsets


def _padded(frames: Tensor) -> Tensor:
    """(..., H, W) with the border pixels continued, contiguous."""
    planes = frames.contiguous().view(1, -1, *frames.shape[-2:])
    padded = F.pad(planes, [_MARGIN, _MARGIN, _EDGE, _EDGE], mode="replicate")
    return padded.view(*frames.shape[:-2], *padded.shape[-2:])


class _Level:
    """``struct level`` of phases_cpu.c, with the memory that it points to."""

    def __init__(self, grey: Tensor, patch: int) -> None:
        height, width = grey.shape[-2:]
        self.mean, self.scale = (tensor.contiguous() for tensor in normalisers(grey[None], patch))
        self.padded = _padded(grey)
        first = self.padded[0, _EDGE:, _MARGIN:].data_ptr()
        strides = self.padded.stride()[:2]
        self.view = _LevelView(first, self.mean.data_ptr(), self.scale.data_ptr(), *strides, height, width)


class _LevelView(ctypes.Structure):
    """``struct level``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grey", "mean", "scale")),
        *((name, ctypes.c_int64) for name in ("frame", "row", "height", "width")),
    )


class _Search(ctypes.Structure):
    """``struct search``."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("frames", "patch", "window", "coarse_window", "refine"))


class _Matches(ctypes.Structure):
    """``struct matches``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in Matches._fields)


@functools.cache
def _library() -> ctypes.CDLL:
    kernels = loaded()
    level, search, matches = (ctypes.POINTER(kind) for kind in (_LevelView, _Search, _Matches))
    address, count = ctypes.c_void_p, ctypes.c_int64
    kernels.phases_coarse.argtypes = [level, search, count, count, address, address]
    kernels.phases_match.argtypes = [level, level, search, count, count, address, matches, address]
    kernels.phases_sort.argtypes = [address, *[count] * 7, matches, *[count] * 4, address]
    for function in (kernels.phases_coarse, kernels.phases_match, kernels.phases_sort):
        function.restype = None
    return kernels
