"""One-hot attention on a GPU: launches the Triton kernels; :mod:`mana_dist.ops.one_hot` is their definition.

Imports torch alone; Triton is imported by the first call. Why the kernels are as they are:

- Forward multiplies and adds on plain cores rather than in ``tl.dot``. Of a tensor-core product of a row of 16 queries
  with the 24 keys that their windows span, three eighths would be used, and two more reductions would take the band out
  again; fp32 would gain nothing, since exact fp32 products run on plain cores anyway. The plain loop costs, per pixel
  and shift, one row of channels from L1.
- Backward has no atomics. Scattering into K and V with fp32 atomics means two fp32 buffers to clear, to update in
  memory and to cast: about 1 GB for a batch of 16 crops of 64x64, 7 frames, 64 channels. The receiving side reads
  indices, 4 bytes per position and shift: 150 MB for the same batch, nearly all from L1, and then the gradients once.
  It is deterministic besides, so there is no second path for ``torch.use_deterministic_algorithms``.
- Tile sizes are tuned at the first call for a number of channels, a window and types. A tile size may change the order
  in which channels are summed, so with deterministic algorithms (and off the GPU) the first of each list is taken.
"""

import importlib.util
from typing import Any

import torch
from torch import Tensor

from mana_dist.ops.shifts import empty_innermost, empty_result

# Tiles to choose from: elements (positions x channels) of a program, and its warps; the first without tuning. Chosen by
# the code that Triton 3.6 and 3.9 make for compute capability 9.0 and 64 channels: no barrier in the loop over shifts,
# registers for many programs on an SM. For a key and value: one warp, for which barriers cost nothing.
_PIXEL_TILES = ((2048, 4), (4096, 4), (2048, 2), (1024, 1))
_CHOSEN_TILES = ((1024, 1), (2048, 4), (512, 1))


def available() -> bool:
    """Return whether Triton is installed. The kernels also need a CUDA device, or Triton's interpreter."""
    return importlib.util.find_spec("triton") is not None


def forward(query: Tensor, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, running argmax and gather in one kernel; products are summed in float32.

    Args:
        query: (B, C, H, W), float32, bfloat16 or float16; any strides, fastest with channels last.
        key: (B, T, C, H, W), as ``query``.
        value: (B, T, C, H, W), as ``query``.
        window: side of the search window, odd.

    Returns:
        Output (B, T, C, H, W), dtype of ``query``, laid out so that ``output.flatten(1, 2)`` is a view that is
        contiguous in channels_last; score (B, T, H, W), float32; index (B, T, H, W), int32, the winning position
        ``y * W + x`` in the frame. H * W must be below 2**31.

    Raises:
        ValueError: the inputs are float64, which the kernels would silently round.
    """
    if query.dtype == torch.float64:
        raise ValueError("the GPU kernels compute in float32; one_hot_attention sends float64 elsewhere")
    from mana_dist.ops import triton_kernels

    batch, frames, _, height, width = key.shape
    output = empty_result(value, query.dtype)
    score = query.new_empty((batch, frames, height, width), dtype=torch.float32)
    index = query.new_empty((batch, frames, height, width), dtype=torch.int32)
    features = (query, key, value, output)
    arguments = (*features, score, index, *map(_strides, features), frames)
    _launch(triton_kernels.forward_kernel, _PIXEL_TILES, batch * frames, key, arguments, WINDOW=window)
    return output, score, index


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
    """The gradients of :func:`forward`'s output; the winning positions are constants. Deterministic.

    Args:
        grad_output: (B, T, C, H, W), any strides.
        query: as given to :func:`forward`.
        key: as given to :func:`forward`.
        value: as given to :func:`forward`.
        score: as returned by :func:`forward`, contiguous.
        index: as returned by :func:`forward`, contiguous.
        window: as given to :func:`forward`.
        needs: whether the gradients of query, key and value are wanted.

    Returns:
        The gradients of query, key and value, summed in float32 and cast to their dtypes, channels last; None where
        not needed.
    """
    from mana_dist.ops import triton_kernels

    needs_query, needs_key, needs_value = needs
    batch, frames = key.shape[:2]
    grad_query = empty_innermost(query) if needs_query else None
    grad_key = empty_innermost(key) if needs_key else None
    grad_value = empty_innermost(value) if needs_value else None
    grad_score = torch.empty_like(score) if needs_query or needs_key else score
    # The kernels do not touch the gradients that are not needed: the inputs stand in for them.
    if needs_query or needs_key:
        target = query if grad_query is None else grad_query
        strides = map(_strides, (grad_output, key, value, target))
        arguments = (grad_output, key, value, index, grad_score, target, *strides)
        constants = {"FRAMES": frames, "NEEDS_QUERY": needs_query}
        _launch(triton_kernels.query_kernel, _PIXEL_TILES, batch, key, arguments, **constants)
    if needs_key or needs_value:
        targets = (key if grad_key is None else grad_key, value if grad_value is None else grad_value)
        strides = map(_strides, (grad_output, query, *targets))
        arguments = (grad_output, query, score, grad_score, index, *targets, *strides, frames)
        constants = {"WINDOW": window, "COLUMNS": _power_of_two(window)}
        constants |= {"NEEDS_KEY": needs_key, "NEEDS_VALUE": needs_value}
        _launch(triton_kernels.key_value_kernel, _CHOSEN_TILES, batch * frames, key, arguments, **constants)
    return grad_query, grad_key, grad_value


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides of batch, frame, channel, row and column; a query is the same for every frame."""
    strides = tensor.stride()
    return (strides[0], 0, *strides[1:]) if len(strides) == 4 else strides


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not less than ``number``: Triton's ranges have no other lengths."""
    return 1 << (number - 1).bit_length()


def _launch(
    kernel: Any,
    tiles: tuple[tuple[int, int], ...],
    images: int,
    key: Tensor,
    arguments: tuple[Any, ...],
    **constants: int,
) -> None:
    """Runs ``kernel`` over every position of ``images`` images."""
    from mana_dist.ops import triton_kernels

    channels, height, width = key.shape[2:]
    block = _power_of_two(channels)

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (images * -(-height * width // max(1, meta["ELEMENTS"] // block)),)

    fixed: dict[str, int] = {}
    if torch.are_deterministic_algorithms_enabled() or not key.is_cuda:
        fixed = {"ELEMENTS": tiles[0][0], "num_warps": tiles[0][1]}
    else:
        kernel = triton_kernels.tuned(kernel, tiles)
    constants = {"CHANNELS": channels, "BLOCK_C": block, **constants, **fixed}
    with torch.cuda.device_of(key):  # Triton launches on the current device.
        kernel[grid](*arguments, height, width, **constants)
