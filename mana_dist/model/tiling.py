"""Frames of any size in bounded memory: the convolutions run tile by tile, the rest over the whole frame.

What looks at the whole frame stays whole, so that tiles cannot disagree: the statistics of the GroupNorm, Q, K and V
with them, and an attention without a reach; ``dense`` needs no more memory than K where torch has a fused kernel for
it. The encoder's tiles overlap by its exact receptive field. The other attentions' tiles are cut from the whole K and
V, reach included. Only the decoder's tiles may overlap by less than its receptive field (82 pixels at the paper's 40
blocks): :data:`DECODER_HALO` pixels, beyond which a pixel's influence is far below one grey level.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mana_dist.model.config import ModelConfig
from mana_dist.model.mana import FrameEmbedding, Mana

DECODER_HALO = 24
LEAST_SIDE = 32
# Live activations of the upsampler's last convolutions, tensors of C/2 channels in the output's size, measured at their
# peak.
_LIVE_TENSORS = 3


@dataclass(frozen=True)
class Tiling:
    """How a frame is cut.

    Attributes:
        side: of a tile without its overlap, LR pixels.
        halo: overlap of the decoder's tiles on each side, LR pixels.
    """

    side: int
    halo: int = DECODER_HALO


def tiling_for(config: ModelConfig, height: int, width: int, budget: int, element_size: int = 4) -> Tiling | None:
    """The tiles with which a frame's convolutions need about ``budget`` bytes; None if the whole frame fits.

    Args:
        config: the network.
        height: the LR frame's height.
        width: the LR frame's width.
        budget: bytes for activations; embeddings and the output frame come on top.
        element_size: bytes of an activation's element, 4 for fp32, 2 for bf16.
    """
    pixels = budget // bytes_per_pixel(config, element_size)
    if height * width <= pixels:
        return None
    halo = min(DECODER_HALO, decoder_reach(config))
    return Tiling(max(int(pixels**0.5) - 2 * halo, LEAST_SIDE), halo)


def bytes_per_pixel(config: ModelConfig, element_size: int) -> int:
    """Activations alive at the network's widest point, the end of the upsampler, per LR pixel."""
    return config.scale**2 * (config.channels // 2) * _LIVE_TENSORS * element_size


def encoder_reach(config: ModelConfig) -> int:
    """LR pixels around a pixel that its feature depends on."""
    return 1 + 2 * config.encoder_blocks


def decoder_reach(config: ModelConfig) -> int:
    """LR pixels around a pixel that its output pixels depend on, in the fused features."""
    return 2 * config.decoder_blocks + 2


def embed(model: Mana, frames: Tensor, tiling: Tiling) -> FrameEmbedding:
    """:meth:`Mana.embed`, the encoder tile by tile; equal to it to rounding."""
    halo = encoder_reach(model.config)
    feature = _over_tiles(frames.shape, tiling.side, halo, 1, lambda r, c: model.encode(frames[..., r, c]))
    return FrameEmbedding(feature, *model.attention.key_value(frames, feature))


def reconstruct(model: Mana, centre: Tensor, feature: Tensor, key: Tensor, value: Tensor, tiling: Tiling) -> Tensor:
    """:meth:`Mana.reconstruct`, attention and decoder tile by tile."""
    query = model.attention.query(feature)
    reach = model.attention.reach
    whole = model.attention(feature, query, key, value) if reach is None else None

    def attended(rows: slice, columns: slice) -> Tensor:
        if reach is None:
            assert whole is not None
            return whole[..., rows, columns]
        # The attention sees `reach` more on each side, so that windows at the tile's border are whole.
        wide_rows, inner_rows = _widen(rows, reach, feature.shape[-2])
        wide_columns, inner_columns = _widen(columns, reach, feature.shape[-1])
        wide = (..., wide_rows, wide_columns)
        found: Tensor = model.attention(feature[wide], query[wide], key[wide], value[wide])
        return found[..., inner_rows, inner_columns]

    def residual(rows: slice, columns: slice) -> Tensor:
        tile = (..., rows, columns)
        return model.decode(model.fuse(feature[tile], query[tile], attended(rows, columns)))

    details = _over_tiles(feature.shape, tiling.side, tiling.halo, model.config.scale, residual)
    return model.upsample(centre) + details


def _over_tiles(shape: torch.Size, side: int, halo: int, scale: int, call: Callable[[slice, slice], Tensor]) -> Tensor:
    """Assemble ``call(rows, columns)`` of overlapping tiles; each gives its tile's pixels, ``scale`` times as many."""
    result: Tensor | None = None
    for rows in _cuts(shape[-2], side):
        wide_rows, inner_rows = _widen(rows, halo, shape[-2])
        for columns in _cuts(shape[-1], side):
            wide_columns, inner_columns = _widen(columns, halo, shape[-1])
            tile = call(wide_rows, wide_columns)
            if result is None:
                size = (*tile.shape[:2], shape[-2] * scale, shape[-1] * scale)
                result = tile.new_empty(size).contiguous(memory_format=torch.channels_last)
            target = (..., _scaled(rows, scale), _scaled(columns, scale))
            result[target] = tile[..., _scaled(inner_rows, scale), _scaled(inner_columns, scale)]
    assert result is not None
    return result


def _cuts(length: int, side: int) -> Iterator[slice]:
    """Near-equal pieces of [0, length), none longer than ``side``."""
    pieces = -(-length // side)
    for piece in range(pieces):
        yield slice(piece * length // pieces, (piece + 1) * length // pieces)


def _widen(inner: slice, by: int, length: int) -> tuple[slice, slice]:
    """``inner`` widened by up to ``by`` on both sides within [0, length), and where ``inner`` lies in that."""
    start, stop = max(inner.start - by, 0), min(inner.stop + by, length)
    return slice(start, stop), slice(inner.start - start, inner.stop - start)


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
