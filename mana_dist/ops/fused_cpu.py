"""One-hot attention on a CPU in one fused pass: ``fused_cpu.c``."""

import ctypes
import functools

import torch
from torch import Tensor

from mana_dist.ops.compiled import library, loaded, share


def available() -> bool:
    """Return whether :func:`forward` and :func:`backward` can run; where not, the first call logs why."""
    return library() is not None


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
    kernels, sizes, dtype = _library(), _sizes(key, window), query.dtype
    if query.dtype == key.dtype == torch.bfloat16 and channels % 2 == 0 and kernels.one_hot_pairs():
        sizes.words = channels // 2
        query, key = (tensor.movedim(-3, -1).contiguous().view(torch.float32) for tensor in (query, key))
    else:
        query, key = (tensor.movedim(-3, -1).float() for tensor in (query, key))
    value = _channels_last(value)
    output = torch.empty(batch, height, width, frames, channels, dtype=value.dtype)
    score = torch.empty(batch, frames, height, width)
    index = torch.empty(batch, frames, height, width, dtype=torch.int32)
    units = batch * kernels.one_hot_forward_rows(sizes)
    scratch_size = kernels.one_hot_forward_scratch(sizes)
    arrays = (_for_frames(query, frames), key, value, output.permute(0, 3, 1, 2, 4))
    tensors = [_described(tensor) for tensor in arrays]

    def work(begin: int, end: int) -> None:
        scratch = torch.empty(scratch_size)
        kernels.one_hot_forward(*tensors, score.data_ptr(), index.data_ptr(), sizes, begin, end, scratch.data_ptr())

    shifts = (2 * sizes.reach_y + 1) * (2 * sizes.reach_x + 1)
    share(work, units, value.numel() * shifts)
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
    sizes, kernels = _sizes(key, window), _library()
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
        kernels.one_hot_backward_frames(
            *(_described(tensor) for tensor in (grad, queries, values)),
            *(score.data_ptr(), index.data_ptr(), sizes, begin, end),
            None if grad_score is None else grad_score.data_ptr(),
            *(None if tensor is None else _described(tensor) for tensor in (grad_key, grad_value)),
            scratch.data_ptr(),
        )

    share(frame_rows, batch * frames * height, 4 * key.numel())
    if grad_query is not None and grad_score is not None:
        scores, result = grad_score.data_ptr(), _described(grad_query.unsqueeze(1))

        def query_rows(begin: int, end: int) -> None:
            scratch = torch.empty(channels)
            arrays = (_described(keys), index.data_ptr(), scores)
            kernels.one_hot_backward_query(*arrays, sizes, begin, end, result, scratch.data_ptr())

        share(query_rows, batch * height, 4 * key.numel())
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


@functools.cache
def _library() -> ctypes.CDLL:
    kernels = loaded()
    tensor, sizes = ctypes.POINTER(_Tensor), ctypes.POINTER(_Sizes)
    address, count = ctypes.c_void_p, ctypes.c_int64
    kernels.one_hot_forward_rows.argtypes = [sizes]
    kernels.one_hot_forward_rows.restype = count
    kernels.one_hot_forward_scratch.argtypes = [sizes]
    kernels.one_hot_forward_scratch.restype = count
    kernels.one_hot_forward.argtypes = [tensor, tensor, tensor, tensor, address, address, sizes, count, count, address]
    kernels.one_hot_forward.restype = None
    kernels.one_hot_backward_frames.argtypes = [
        *(tensor, tensor, tensor, address, address, sizes),
        *(count, count, address, tensor, tensor, address),
    ]
    kernels.one_hot_backward_frames.restype = None
    kernels.one_hot_backward_query.argtypes = [tensor, address, address, sizes, count, count, tensor, address]
    kernels.one_hot_backward_query.restype = None
    return kernels
