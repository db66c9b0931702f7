"""YUV pictures of random samples, and what they are in RGB by the definitions alone, in float64: the tests' oracle."""

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]

# Weights of red and blue in luma, by ffmpeg's number of the matrix (ITU-T H.273), and setparams' name of it.
MATRICES = {
    1: (0.2126, 0.0722, "bt709"),
    4: (0.30, 0.11, "fcc"),
    5: (0.299, 0.114, "bt470bg"),
    6: (0.299, 0.114, "smpte170m"),
    7: (0.212, 0.087, "smpte240m"),
    9: (0.2627, 0.0593, "bt2020nc"),
}
PLACES = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
}
"""Positions of a chroma sample among the pixels that it stands for, across and down: 0 on the first, 1 on the last."""


@dataclass(frozen=True)
class Tags:
    """The tags of a picture."""

    place: str = "left"
    matrix: int = 1
    full: bool = False


def random_planes(height: int, width: int, sub: tuple[int, int], bits: int, seed: int = 0) -> list[Samples]:
    """Luma and two planes of chroma that ``sub`` halves across and down so often."""
    random = np.random.default_rng(seed)
    chroma = -(-height // (1 << sub[1])), -(-width // (1 << sub[0]))
    dtype = np.uint8 if bits == 8 else np.uint16
    return [random.integers(0, 1 << bits, shape, dtype) for shape in ((height, width), chroma, chroma)]


def picture_of(planes: list[Samples], width: int, height: int, pixel_format: str, tags: Tags | None = None) -> Any:
    """A PyAV frame whose planes hold these lines, from the left; what more they have (alpha) is noise."""
    picture = av.VideoFrame(width, height, pixel_format)
    for number, plane in enumerate(picture.planes):
        if number < len(planes):
            lines = np.ascontiguousarray(planes[number]).view(np.uint8)
            target = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            target[: len(lines), : lines.shape[1]] = lines
        else:
            plane.update(np.random.default_rng(9).bytes(plane.buffer_size))
    return tagged(picture, tags) if tags else picture


def tagged(picture: Any, tags: Tags) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=1)
    values = f"chroma_location={tags.place}:colorspace={MATRICES[tags.matrix][2]}:range={'pc' if tags.full else 'tv'}"
    filter_, sink = graph.add("setparams", values), graph.add("buffersink")
    source.link_to(filter_)
    filter_.link_to(sink)
    graph.configure()
    graph.vpush(picture)
    return graph.vpull()


def rgb(planes: list[Samples], bits: int, sub: tuple[int, int], tags: Tags) -> Samples:
    """(H, W, 3) from 0 to 1, not rounded; chroma linearly between its samples, those at the edges repeated."""
    luma, *chroma = (plane.astype(np.float64) for plane in planes)
    height, width = luma.shape
    across, down = PLACES[tags.place]
    blue, red = (_to_pixels(_to_pixels(part, height, sub[1], down).T, width, sub[0], across).T for part in chroma)
    step = (1 << bits) / 256
    if tags.full:
        top = (1 << bits) - 1
        luma, blue, red = luma / top, (blue - 128 * step) / top, (red - 128 * step) / top
    else:
        luma, blue, red = (luma / step - 16) / 219, (blue / step - 128) / 224, (red / step - 128) / 224
    red_weight, blue_weight, _ = MATRICES[tags.matrix]
    r, b = luma + 2 * (1 - red_weight) * red, luma + 2 * (1 - blue_weight) * blue
    g = (luma - red_weight * r - blue_weight * b) / (1 - red_weight - blue_weight)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1)


def yuv(pixels: Samples, bits: int, sub: tuple[int, int], tags: Tags) -> list[Samples]:
    """Luma and chroma of (H, W, 3) RGB from 0 to 1, not rounded; chroma by a triangle two samples' distances wide."""
    red_weight, blue_weight, _ = MATRICES[tags.matrix]
    luma = pixels @ [red_weight, 1 - red_weight - blue_weight, blue_weight]
    across, down = PLACES[tags.place]
    chroma = [
        (pixels[..., 2] - luma) / (2 * (1 - blue_weight)),
        (pixels[..., 0] - luma) / (2 * (1 - red_weight)),
    ]
    blue, red = (_to_samples(_to_samples(part, sub[1], down).T, sub[0], across).T for part in chroma)
    step = (1 << bits) / 256
    if tags.full:
        top = (1 << bits) - 1
        return [luma * top, blue * top + 128 * step, red * top + 128 * step]
    return [(luma * 219 + 16) * step, (blue * 224 + 128) * step, (red * 224 + 128) * step]


def _to_pixels(samples: Samples, count: int, halvings: int, place: float) -> Samples:
    factor = 1 << halvings
    at = np.clip((np.arange(count) - place * (factor - 1)) / factor, 0, len(samples) - 1)
    before = np.floor(at).astype(int)
    part = (at - before)[:, None]
    return samples[before] * (1 - part) + samples[np.minimum(before + 1, len(samples) - 1)] * part


def _to_samples(pixels: Samples, halvings: int, place: float) -> Samples:
    factor = 1 << halvings
    centres = np.arange(len(pixels) // factor)[:, None] * factor + place * (factor - 1)
    taps = np.arange(-2 * factor, len(pixels) + 2 * factor)
    weights = np.maximum(0, 1 - np.abs(taps - centres) / factor)
    return (weights / weights.sum(axis=1, keepdims=True)) @ pixels[np.clip(taps, 0, len(pixels) - 1)]
