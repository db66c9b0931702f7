"""One-hot attention on a CPU in one fused pass: ``fused_cpu.c``, compiled when the package is built (``setup.py``).

There is a library for each kind of processor; the best that this one can run is loaded.
"""

import contextlib
import ctypes
import functools
import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import Tensor

# The builds of setup.py, the fastest first, with what each needs of the processor in torch's words.
_AVX2 = {"avx2", "fma3"}
_AVX512 = _AVX2 | {"avx512_f", "avx512_bw", "avx512_dq", "avx512_vl"}
_BUILDS = {
    "_fused_cpu_avx512_bf16": _AVX512 | {"avx512_bf16"},
    "_fused_cpu_avx512": _AVX512,
    "_fused_cpu_avx2": _AVX2,
    "_fused_cpu": set(),
}
# A further thread must have this many multiply-adds to be worth its start.
_WORK_PER_THREAD = 2_000_000
_log = logging.getLogger("mana_dist")


def available() -> bool:
    """Return whether :func:`forward` and :func:`backward` can run; where not, the first call logs why."""
    return _library() is not None


def forward(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """One-hot attention, as :func:`mana_dist.ops.one_hot_attention` defines it, summed in float32.

    Of bfloat16 the processor's products of pairs are used where it has them; they take subnormal numbers for zero.

    Args:
        query: (B, C, H, W), float32 or bfloat16, any strides; fastest with the channels innermost in memory.
        key: (B, T, C, H, W), likewise.
        value: (B, T, C, H, W), likewise.
        window: side of the search window, odd and positive.

    Returns:
        The output (B, T, C, H, W) in the dtype of ``query``, which in memory is (B, H, W, T, C), so that
        ``output.flatten(1, 2)`` is a channels-last view; the winning score (B, T, H, W), float32; and its flat position
        y * W + x in the frame (B, T, H, W), int32.
    """
    batch, frames, channels, height, width = key.shape
    library, sizes, dtype = _loaded(), _sizes(key, window), query.dtype
    if query.dtype == key.dtype == torch.bfloat16 and channels % 2 == 0 and library.one_hot_pairs():
        sizes.words = channels // 2
        query, key = (tensor.movedim(-3, -1).contiguous().view(torch.float32) for tensor in (query, key))
    else:
        query, key = (tensor.movedim(-3, -1).float() for tensor in (query, key))
    value = _channels_last(value)
    output = torch.empty(batch, height, width, frames, channels, dtype=value.dtype)
    score = torch.empty(batch, frames, height, width)
    index = torch.empty(batch, frames, height, width, dtype=torch.int32)
    units = batch * library.one_hot_forward_rows(sizes)
    scratch_size = library.one_hot_forward_scratch(sizes)
    arrays = (_for_frames(query, frames), key, value, output.permute(0, 3, 1, 2, 4))
    tensors = [_described(tensor) for tensor in arrays]

    def work(begin: int, end: int) -> None:
        scratch = torch.empty(scratch_size)
        library.one_hot_forward(*tensors, score.data_ptr(), index.data_ptr(), sizes, begin, end, scratch.data_ptr())

    shifts = (2 * sizes.reach_y + 1) * (2 * sizes.reach_x + 1)
    _share(work, units, value.numel() * shifts)
    return output.permute(0, 3, 4, 1, 2).to(dtype), score, index


def backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score: Tensor,
    index: Tensor,
    window: int,
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of query, key and value, computed in float32; the same bits for any number of threads.

    Args:
        grad_output: gradient of the output, (B, T, C, H, W), any dtype and strides.
        query: what :func:`forward` was given.
        key: likewise.
        value: likewise.
        score: what :func:`forward` returned.
        index: likewise.
        window: what :func:`forward` was given.
        needs: which of the three gradients to compute.

    Returns:
        For each of query, key and value its gradient, in its shape and dtype and with the channels innermost in memory,
        or None where it was not asked for.
    """
    batch, frames, channels, height, _ = key.shape
    for_query, for_key, for_value = needs
    sizes, library = _sizes(key, window), _loaded()
    grad, queries, keys, values = (
        _channels_last(grad_output),
        _for_frames(_channels_last(query), frames),
        _channels_last(key),
        _channels_last(value),
    )
    grad_query = torch.empty(queries[:, 0].shape) if for_query else None
    grad_key = torch.empty(keys.shape) if for_key else None
    grad_value = torch.empty(values.shape) if for_value else None
    grad_score = torch.empty_like(score) if for_query or for_key else None

    def frame_rows(begin: int, end: int) -> None:
        scratch = torch.empty(3, channels)
        library.one_hot_backward_frames(
            *(_described(tensor) for tensor in (grad, queries, values)),
            *(score.data_ptr(), index.data_ptr(), sizes, begin, end),
            None if grad_score is None else grad_score.data_ptr(),
            *(None if tensor is None else _described(tensor) for tensor in (grad_key, grad_value)),
            scratch.data_ptr(),
        )

    _share(frame_rows, batch * frames * height, 4 * key.numel())
    if grad_query is not None and grad_score is not None:
        scores, result = grad_score.data_ptr(), _described(grad_query.unsqueeze(1))

        def query_rows(begin: int, end: int) -> None:
            scratch = torch.empty(channels)
            arrays = (_described(keys), index.data_ptr(), scores)
            library.one_hot_backward_query(*arrays, sizes, begin, end, result, scratch.data_ptr())

        _share(query_rows, batch * height, 4 * key.numel())
    return (
        None if grad_query is None else grad_query.movedim(-1, 1).to(query.dtype),
        None if grad_key is None else grad_key.movedim(-1, 2).to(key.dtype),
        None if grad_value is None else grad_value.movedim(-1, 2).to(value.dtype),
    )


class _Tensor(ctypes.Structure):
    """``struct tensor`` of fused_cpu.c."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "frame", "row", "column", "channel", "size")),
    )


class _Sizes(ctypes.Structure):
    """``struct sizes`` of fused_cpu.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("frames", "channels", "height", "width", "reach_y", "reach_x", "words")
    )


def _described(tensor: Tensor) -> _Tensor:
    """Address, strides and size of the numbers of a (B, T, H, W, C) tensor."""
    return _Tensor(tensor.data_ptr(), *tensor.stride(), tensor.itemsize)


def _sizes(key: Tensor, window: int) -> _Sizes:
    _, frames, channels, height, width = key.shape
    reach = window // 2
    return _Sizes(
        frames, channels, height, width, max(0, min(reach, height - 1)), max(0, min(reach, width - 1)), channels
    )


def _channels_last(tensor: Tensor) -> Tensor:
    """(..., C, H, W) as (..., H, W, C), whatever the layout in memory: a view of a float32 or bfloat16 tensor."""
    return tensor.movedim(-3, -1).to(torch.bfloat16 if tensor.dtype == torch.bfloat16 else torch.float32)


def _for_frames(query: Tensor, frames: int) -> Tensor:
    """A view of (B, H, W, C) as one (B, T, H, W, C) tensor whose frames all lie in one place."""
    return query.unsqueeze(1).expand(-1, frames, -1, -1, -1)


def _share(work: Callable[[int, int], None], units: int, multiply_adds: int) -> None:
    """Calls ``work(begin, end)`` on parts of range(units), a thread each, and returns when all are done."""
    threads = max(1, min(torch.get_num_threads(), units, multiply_adds // _WORK_PER_THREAD))
    if threads == 1:
        work(0, units)
        return
    bounds = [units * thread // threads for thread in range(threads + 1)]
    # New threads for each call: starting one takes some 60 microseconds, and a kept pool does not survive a fork.
    with ThreadPoolExecutor(threads - 1) as pool:
        parts = [pool.submit(work, bounds[thread], bounds[thread + 1]) for thread in range(1, threads)]
        work(bounds[0], bounds[1])
    for part in parts:
        part.result()


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the fused CPU implementation is not available: ask available() first")
    return library


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The best library for this processor that was built from this version of the source."""
    source, stale = Path(__file__).with_suffix(".c"), False
    version = hashlib.sha256(source.read_bytes()).hexdigest().encode()
    has = torch.cpu.get_capabilities()
    for name in (name for name, needs in _BUILDS.items() if all(has.get(need) for need in needs)):
        for folder in _folders():
            if (spec := PathFinder.find_spec(name, [str(folder)])) and spec.origin:
                with contextlib.suppress(OSError):  # made for another system
                    library = ctypes.CDLL(spec.origin)
                    if (ctypes.c_char * len(version)).in_dll(library, "one_hot_source").raw == version:
                        return _with_signatures(library)
                    stale = True
    _log.warning(
        "attention on this CPU runs several times slower than it could: the compiled kernel of %s is %s; "
        "install mana_dist again, in a checkout with `pip install -e .` (needs a C compiler)",
        source,
        "of another version" if stale else "missing",
    )
    return None


def _folders() -> list[Path]:
    """Where the libraries may lie: here, or where the package is installed, of which a Ray job's folder is a copy."""
    folders = [Path(__file__).parent]
    with contextlib.suppress(PackageNotFoundError):
        installed = distribution("mana-dist")
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        editable = origin.get("dir_info", {}).get("editable")
        root = url2pathname(urlsplit(origin["url"]).path) if editable else str(installed.locate_file(""))
        folders.append(Path(root, "mana_dist", "ops"))
    return folders


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    tensor, sizes = ctypes.POINTER(_Tensor), ctypes.POINTER(_Sizes)
    address, count = ctypes.c_void_p, ctypes.c_int64
    library.one_hot_forward_rows.argtypes = [sizes]
    library.one_hot_forward_rows.restype = count
    library.one_hot_forward_scratch.argtypes = [sizes]
    library.one_hot_forward_scratch.restype = count
    library.one_hot_forward.argtypes = [tensor, tensor, tensor, tensor, address, address, sizes, count, count, address]
    library.one_hot_forward.restype = None
    library.one_hot_backward_frames.argtypes = [
        *(tensor, tensor, tensor, address, address, sizes),
        *(count, count, address, tensor, tensor, address),
    ]
    library.one_hot_backward_frames.restype = None
    library.one_hot_backward_query.argtypes = [tensor, address, address, sizes, count, count, tensor, address]
    library.one_hot_backward_query.restype = None
    return library
