"""Triton kernels of one-hot attention; only :mod:`mana_dist.ops.fused_gpu` launches them.

Common to the three kernels:

- A program owns ``ELEMENTS / BLOCK_C`` consecutive positions of one frame, counted row by row, so that no lane idles in
  a narrow frame. A tile is (positions, channels), float32 in registers; channels beyond ``CHANNELS`` are zero.
- Tensors of features come with five strides (batch, frame, channel, row, column), in elements. Any strides are right;
  unit stride of channels is fast: a position is then one run of 16-byte loads.
- Offsets are 64-bit, since a stride times a row overflows 32 bits in large frames; positions in a frame are 32-bit.
- Sums are taken in one order, without atomics: equal inputs give equal bits.
"""

# Triton's language has no types that mypy knows; constants of compilation are in capitals by its custom; NaN is told by
# comparing a number with itself.
# mypy: ignore-errors
# ruff: noqa: N803, PLR0124

from functools import cache

import triton
import triton.language as tl


@cache
def tuned(kernel, tiles):
    """``kernel`` with the fastest of ``tiles`` (elements, warps), found once for each set of types and constants.

    Cached, since the returned object holds what it has found.
    """
    configs = [triton.Config({"ELEMENTS": elements}, num_warps=warps) for elements, warps in tiles]
    constants = [name for name in kernel.arg_names if name.isupper() and name != "ELEMENTS"]
    return triton.autotune(configs, key=constants)(kernel)


@triton.jit
def _tile_of(frames, positions, BLOCK_C: tl.constexpr, ELEMENTS: tl.constexpr):
    """Batch item and frame (64-bit) and flat positions (32-bit) of this program."""
    # One position at least, where there are more channels than elements.
    own: tl.constexpr = (ELEMENTS + BLOCK_C - 1) // BLOCK_C
    tiles = tl.cdiv(positions, own)
    frame = (tl.program_id(0) // tiles).to(tl.int64)
    return frame // frames, frame % frames, (tl.program_id(0) % tiles) * own + tl.arange(0, own)


@triton.jit
def _pointers(tensor, strides, b, t, y, x):
    """Pointers to channel 0 of positions (y, x) of frame t; to be read only where a mask says so."""
    return tensor + b * strides[0] + t * strides[1] + y.to(tl.int64) * strides[3] + x.to(tl.int64) * strides[4]


@triton.jit
def _load(pointers, strides, mask, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """All channels at ``pointers``, float32 (positions, BLOCK_C); zero where ``mask`` is false."""
    channel = tl.arange(0, BLOCK_C)
    offsets = channel.to(tl.int64) * strides[2]
    mask = mask[:, None] & (channel < CHANNELS)[None, :]
    return tl.load(pointers[:, None] + offsets[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store(pointers, strides, tile, mask, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Writes ``tile`` (positions, BLOCK_C) at ``pointers``, in their type."""
    channel = tl.arange(0, BLOCK_C)
    offsets = channel.to(tl.int64) * strides[2]
    mask = mask[:, None] & (channel < CHANNELS)[None, :]
    tl.store(pointers[:, None] + offsets[None, :], tile.to(pointers.dtype.element_ty), mask=mask)


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    output,
    score,
    index,
    query_strides,
    key_strides,
    value_strides,
    output_strides,
    frames,
    height,
    width,
    WINDOW: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """Score, running argmax and gather in one pass; one program for a tile of pixels of one frame.

    The query tile stays in registers; each shift of the window reads a key tile, served by L1 for all columns of a
    row but the first. Plain products and sums, no tensor cores: see ``fused_gpu``.
    """
    b, t, pixel = _tile_of(frames, height * width, BLOCK_C, ELEMENTS)
    y = pixel // width
    x = pixel % width
    real = pixel < height * width
    q = _load(_pointers(query, query_strides, b, 0, y, x), query_strides, real, CHANNELS, BLOCK_C)

    best = tl.full(pixel.shape, float("-inf"), tl.float32)
    winner = tl.full(pixel.shape, -1, tl.int32)
    for dy in range(-(WINDOW // 2), WINDOW // 2 + 1):
        in_rows = real & (y + dy >= 0) & (y + dy < height)
        pointers = _pointers(key, key_strides, b, t, y + dy, x - WINDOW // 2)
        for dx in range(-(WINDOW // 2), WINDOW // 2 + 1):
            inside = in_rows & (x + dx >= 0) & (x + dx < width)
            match = tl.sum(q * _load(pointers, key_strides, inside, CHANNELS, BLOCK_C), axis=1)
            # Strictly better, so that the first of equals stays; the first position inside whatever its score; NaN
            # (the only number unequal to itself) over every number, and the first NaN over later ones.
            wins = inside & ((match > best) | (winner < 0) | ((match != match) & (best == best)))
            best = tl.where(wins, match, best)
            winner = tl.where(wins, pixel + dy * width + dx, winner)
            pointers += key_strides[4]

    flat = (b * frames + t) * height * width + pixel
    tl.store(score + flat, best, mask=real)
    tl.store(index + flat, winner, mask=real)
    places = _pointers(value, value_strides, b, t, winner // width, winner % width)
    v = _load(places, value_strides, real, CHANNELS, BLOCK_C)
    places = _pointers(output, output_strides, b, t, y, x)
    _store(places, output_strides, best[:, None] * v, real, CHANNELS, BLOCK_C)


@triton.jit
def query_kernel(
    grad_output,
    key,
    value,
    index,
    grad_score,
    grad_query,
    grad_output_strides,
    key_strides,
    value_strides,
    grad_query_strides,
    height,
    width,
    FRAMES: tl.constexpr,
    NEEDS_QUERY: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """Gradients of score (every frame) and query; one program for a tile of pixels and all frames of a batch item."""
    # A batch item has one query: it counts as one frame.
    b, _, pixel = _tile_of(1, height * width, BLOCK_C, ELEMENTS)
    y = pixel // width
    x = pixel % width
    real = pixel < height * width
    total = tl.zeros((pixel.shape[0], BLOCK_C), tl.float32)
    for step in range(FRAMES):
        t = b * 0 + step  # 64-bit: a frame times its stride may overflow
        flat = (b * FRAMES + t) * height * width + pixel
        winner = tl.load(index + flat, mask=real, other=0)
        places = _pointers(grad_output, grad_output_strides, b, t, y, x)
        g = _load(places, grad_output_strides, real, CHANNELS, BLOCK_C)
        places = _pointers(value, value_strides, b, t, winner // width, winner % width)
        slope = tl.sum(g * _load(places, value_strides, real, CHANNELS, BLOCK_C), axis=1)
        tl.store(grad_score + flat, slope, mask=real)
        if NEEDS_QUERY:
            places = _pointers(key, key_strides, b, t, winner // width, winner % width)
            total += slope[:, None] * _load(places, key_strides, real, CHANNELS, BLOCK_C)
    if NEEDS_QUERY:
        places = _pointers(grad_query, grad_query_strides, b, 0, y, x)
        _store(places, grad_query_strides, total, real, CHANNELS, BLOCK_C)


@triton.jit
def key_value_kernel(
    grad_output,
    query,
    score,
    grad_score,
    index,
    grad_key,
    grad_value,
    grad_output_strides,
    query_strides,
    grad_key_strides,
    grad_value_strides,
    frames,
    height,
    width,
    NEEDS_KEY: tl.constexpr,
    NEEDS_VALUE: tl.constexpr,
    WINDOW: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """Gradients of key and value: sums over the pixels that chose each position, in row-major order.

    The adjoint of the gather, done from the receiving side: a position looks at the indices of the window around it,
    which is every pixel that could have chosen it, one row of the window at a time. Features are read on a match only,
    and a position is chosen once on average: one step serves all positions' next matches in the row.
    """
    b, t, position = _tile_of(frames, height * width, BLOCK_C, ELEMENTS)
    y = position // width
    x = position % width
    real = position < height * width
    k = tl.zeros((position.shape[0], BLOCK_C), tl.float32)
    v = tl.zeros((position.shape[0], BLOCK_C), tl.float32)
    left = x - WINDOW // 2
    columns = tl.arange(0, COLUMNS)[:, None]
    for dy in range(-(WINDOW // 2), WINDOW // 2 + 1):
        in_rows = real & (y + dy >= 0) & (y + dy < height)
        row = (b * frames + t) * height * width + (y + dy) * width
        inside = in_rows & (columns < WINDOW) & (left + columns >= 0)
        inside = inside & (left + columns < width)
        chosen = tl.load(index + (row + left) + columns, mask=inside, other=-1) == position
        column = tl.min(tl.where(chosen, columns, COLUMNS), axis=0)
        while tl.min(column, axis=0) < COLUMNS:
            match = column < COLUMNS
            pixel = row + left + column
            if NEEDS_KEY:
                places = _pointers(query, query_strides, b, 0, y + dy, left + column)
                q = _load(places, query_strides, match, CHANNELS, BLOCK_C)
                k += tl.load(grad_score + pixel, mask=match, other=0.0)[:, None] * q
            if NEEDS_VALUE:
                places = _pointers(grad_output, grad_output_strides, b, t, y + dy, left + column)
                g = _load(places, grad_output_strides, match, CHANNELS, BLOCK_C)
                v += tl.load(score + pixel, mask=match, other=0.0)[:, None] * g
            column = tl.min(tl.where(chosen & (columns > column), columns, COLUMNS), axis=0)
    if NEEDS_KEY:
        _store(_pointers(grad_key, grad_key_strides, b, t, y, x), grad_key_strides, k, real, CHANNELS, BLOCK_C)
    if NEEDS_VALUE:
        _store(_pointers(grad_value, grad_value_strides, b, t, y, x), grad_value_strides, v, real, CHANNELS, BLOCK_C)
