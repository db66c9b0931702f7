"""BD: a Gaussian blur, then every fourth pixel.

A 13x13 Gaussian of sigma 1.6, normalised to sum 1; LR pixel (i, j) is the blurred HR pixel (4i, 4j). Borders mirror
without repeating the edge pixel; computed in float64, rounded once, halves upwards. Kernel, border and phase as in
DUF's data and BasicSR's ``duf_downsample``.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation.degradation_kind import Degradation
from mana_dist.data.resize import ROUNDED, apply_separable, tap_matrix

if TYPE_CHECKING:
    from scipy import sparse

_SIGMA = 1.6
_RADIUS = 6
_SIDE = 2 * _RADIUS + 1


def _shrink(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    if scale != 4:
        raise ValueError(f"BD is defined for scale 4, not {scale}")
    return apply_separable(frame, _gaussian_matrix(frame.shape[0]), _gaussian_matrix(frame.shape[1]))


@lru_cache(maxsize=64)
def _gaussian_matrix(length: int) -> "sparse.csr_array":
    """Return BD along a line: float64 (length // 4, length). The 2-D kernel is the outer product of its kernel."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    taps = 4 * np.arange(length // 4)[:, None] + offsets
    weights = np.broadcast_to(kernel / kernel.sum(), taps.shape)
    return tap_matrix(taps, weights, length, edge_repeated=False)


BD = Degradation(
    name="BD",
    version=1,
    definition=(
        f"Gaussian {_SIDE}x{_SIDE}, sigma {_SIGMA}, sum 1; LR pixel (i, j) is the blurred HR pixel (4i, 4j); "
        f"borders mirrored, the edge pixel not repeated; {ROUNDED}"
    ),
    shrink=_shrink,
    lr_folders=("BDx4",),
    scales=(4,),
)
