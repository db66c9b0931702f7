"""Softmax attention over whole frames: the conventional non-local attention that the paper argues against."""

import torch.nn.functional as F
from torch import Tensor

from mana_dist.ops.shifts import check_shapes


def dense_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Average, per pixel and per frame, over all positions of the frame by the softmax of their scores.

    For the pixel p of each frame t, with j over all positions of the frame::

        out[t, p] = sum_j softmax_j(<query[p], key[t, j]>) * value[t, j]

    The scores are not scaled (paper section 3.2: Gamma = Q K). The paper's "traditional setup" has one softmax over
    the positions of all T frames together and so one result; here each frame has a softmax of its own, as the paper
    does "to mitigate the GPU memory issue" and as the authors' released code does. So the network around it, its
    parameters included, is the one-hot network, and what is compared is the choice of positions and nothing else. The
    released code also weights by a Gaussian of the distance with a learned width; that is left out.

    Time grows with (H W)^2. Memory does not where torch has a fused kernel (CPUs; GPUs of compute capability 8 and up,
    with C a multiple of 8); elsewhere torch makes the whole matrix, B T (H W)^2 elements.

    Args:
        query: (B, C, H, W), floating point.
        key: (B, T, C, H, W), dtype and device of ``query``.
        value: (B, T, C, H, W), dtype and device of ``query``.

    Returns:
        (B, T, C, H, W), dtype of ``query``.

    Raises:
        ValueError: shapes do not match.
    """
    check_shapes(query, key, value)
    # The frames take the place of attention heads; the query is the same for all, and not copied.
    rows = _rows(query).unsqueeze(1).expand(-1, key.shape[1], -1, -1)
    attended = F.scaled_dot_product_attention(rows, _rows(key), _rows(value), scale=1.0)
    return attended.mT.unflatten(-1, key.shape[-2:])


def _rows(tensor: Tensor) -> Tensor:
    """(..., C, H, W) -> (..., H W, C), channels innermost, as the fused kernels need it; a view of channels last."""
    return tensor.flatten(-2).mT.contiguous()
