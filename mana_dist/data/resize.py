"""MATLAB's ``imresize`` (bicubic, antialiased), the resampling behind published super-resolution results."""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

BICUBIC_A = -0.5
"""Free parameter of Keys's cubic kernel in MATLAB's ``imresize`` (OpenCV and PyTorch's plain bicubic use -0.75)."""

IMRESIZE = f"MATLAB's imresize, bicubic (Keys, a = {BICUBIC_A})"
ROUNDED = "computed in float64, rounded once to uint8, halves up"
"""Descriptions of the method and its rounding for protocols."""


def imresize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize as MATLAB's ``im2uint8(imresize(im2double(image), [height width], "bicubic"))`` does.

    Keys's cubic kernel with a = -0.5; when shrinking it is widened by the scale and renormalised (antialiasing);
    borders are mirrored with the edge pixel repeated; the side that shrinks most goes first, of equal ones the rows;
    computed in float64 and rounded once, at the end, halves upwards. (MATLAB given uint8 rounds after each of the
    two passes; that differs from this by at most one.)

    ``image`` is uint8 (H, W, C), the result uint8 (height, width, C).
    """
    rows, columns = image.shape[:2]
    vertical, horizontal = _exact_blocks(rows, height), _exact_blocks(columns, width)
    if vertical and horizontal:
        return _apply_exact(image, height, width, vertical, horizontal)
    rows_first = height / rows <= width / columns
    return apply_separable(image, bicubic_matrix(rows, height), bicubic_matrix(columns, width), rows_first)


@lru_cache(maxsize=64)
def bicubic_matrix(length: int, output: int) -> "sparse.csr_array":
    """Return the weights that resize a line of ``length`` samples to ``output`` samples.

    Returns:
        float64 (output, length), sparse; every row sums to 1. The caller must not change it: it is cached.

    Source: MATLAB's ``imresize``, function ``contributions``.
    """
    scale = output / length
    widening = min(scale, 1.0)
    support = 4 / widening
    centre = (np.arange(output) + 0.5) / scale - 0.5
    taps = np.floor(centre - support / 2)[:, None] + np.arange(int(np.ceil(support)) + 2)
    weights = _cubic(widening * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    return tap_matrix(taps.astype(np.int64), weights, length, edge_repeated=True)


def tap_matrix(
    taps: NDArray[np.int64], weights: NDArray[np.float64], length: int, *, edge_repeated: bool
) -> "sparse.csr_array":
    """Return a sparse matrix (outputs, length) of every output's ``taps`` and ``weights``, both (outputs, n).

    Taps outside 0..length-1 are mirrored: about the border's outer side where ``edge_repeated`` (... 1 0 0 1 ...),
    else about the border sample itself (... 2 1 0 1 2 ...).
    """
    if edge_repeated:
        mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    else:
        mirrored = np.concatenate([np.arange(length), np.arange(1, length - 1)[::-1]])
    columns = mirrored[taps % len(mirrored)]
    rows = np.broadcast_to(np.arange(len(taps))[:, None], taps.shape)
    from scipy import sparse  # takes longer to import than a command's help should

    matrix = sparse.csr_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(len(taps), length))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def apply_separable(
    image: NDArray[np.uint8], vertical: "sparse.csr_array", horizontal: "sparse.csr_array", rows_first: bool = True
) -> NDArray[np.uint8]:
    """Apply ``vertical`` (height, H) and ``horizontal`` (width, W) to (H, W, C); round once, halves upwards."""
    values = image.astype(np.float64)
    for axis in (0, 1) if rows_first else (1, 0):
        values = _along(values, vertical if axis == 0 else horizontal, axis)
    return _rounded(values)


class _Block(NamedTuple):
    """Some lines of the result: ``weights`` (stop - start, last - first) times the lines first..last of the image."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


@lru_cache(maxsize=64)
def _exact_blocks(length: int, output: int) -> tuple[_Block, ...]:
    """Return :func:`bicubic_matrix` as small dense blocks; none unless all its weights are multiples of 1/4096.

    They are for the scales 1/2, 1/4 and 4.
    """
    matrix = bicubic_matrix(length, output)
    if np.any(matrix.data * 4096 % 1):
        return ()
    blocks = []
    lines = 8 if output < length else 32
    for start in range(0, output, lines):
        part = matrix[start : start + lines]
        first, last = int(part.indices.min()), int(part.indices.max()) + 1
        weights = np.ascontiguousarray(part[:, first:last].toarray(), np.float32)
        blocks.append(_Block(start, start + part.shape[0], first, last, weights))
    return tuple(blocks)


def _apply_exact(
    image: NDArray[np.uint8], height: int, width: int, vertical: tuple[_Block, ...], horizontal: tuple[_Block, ...]
) -> NDArray[np.uint8]:
    """Return the same as :func:`apply_separable`, up to three times as fast: no step rounds, so the order is free.

    Weights are multiples of 2^-12 and their magnitudes sum to less than 2: the first pass's sums have at most 21 bits,
    which float32 holds, the second pass's at most 34, which float64 holds.
    """
    import cv2  # transposes many times faster than NumPy

    lines = image.reshape(len(image), -1)
    between = np.empty((height, lines.shape[1]), np.float32)
    for block in vertical:
        part = lines[block.first : block.last].astype(np.float32)
        np.matmul(block.weights, part, out=between[block.start : block.stop])
    columns = cv2.transpose(between.reshape(height, *image.shape[1:])).reshape(image.shape[1], -1)
    result = np.empty((width, columns.shape[1]), np.float64)
    for block in horizontal:
        wide = columns[block.first : block.last].astype(np.float64)
        np.matmul(block.weights.astype(np.float64), wide, out=result[block.start : block.stop])
    return cv2.transpose(_rounded(result).reshape(width, height, -1)).reshape(height, width, -1)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round to the nearest integer, halves upwards, within 0..255; changes ``values``."""
    values += 0.5
    np.clip(values, 0, 255, out=values)  # truncation of x + 0.5 rounds halves up, for x >= 0
    return values.astype(np.uint8)


def _along(values: NDArray[np.float64], matrix: "sparse.csr_array", axis: int) -> NDArray[np.float64]:
    lines = np.ascontiguousarray(values.swapaxes(0, axis))
    result = matrix @ lines.reshape(lines.shape[0], -1)
    return result.reshape(matrix.shape[0], *lines.shape[1:]).swapaxes(0, axis)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys's cubic convolution kernel at ``x`` (IEEE Trans. ASSP 29(6), 1981)."""
    x = np.abs(x)
    near = (BICUBIC_A + 2) * x**3 - (BICUBIC_A + 3) * x**2 + 1
    far = BICUBIC_A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
