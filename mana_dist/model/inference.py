"""Super-resolution of videos frame by frame: each frame is encoded once and memory does not grow with the length."""

from collections import deque
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from mana_dist.errors import UserError
from mana_dist.model import FrameEmbedding, Mana, Padding, tiling, window_indices
from mana_dist.model.precision import Precision
from mana_dist.model.tiling import Tiling

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
Pixels = NDArray[Any]  # (H, W, 3) RGB, uint8, or uint16 from 0 to 65535
Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB


class _Embedded(NamedTuple):
    dtype: np.dtype[Any]  # of the frame
    pixels: Tensor  # (1, 3, h, w) in [0, 1]
    feature: Tensor


class _Ring:
    """K or V of the last T frames, each there twice, T places apart: any of their sequences of T is a view.

    A frame is copied twice instead of T times, into each window that it is in. The channels lie innermost, as the
    attention is fastest with.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._places = torch.empty(0)

    def put(self, number: int, frame: Tensor) -> None:
        """Hold (1, C', h, w) of frame ``number`` instead of that of frame ``number`` - T."""
        rows = frame[0].movedim(0, -1)
        if not number:
            self._places = rows.new_empty(2 * self._size, *rows.shape)
        place = number % self._size
        self._places[place] = self._places[place + self._size] = rows

    def window(self, numbers: list[int]) -> Tensor:
        """Return (1, T, C', h, w) of frames ``numbers``, all held; a view if they follow each other."""
        first = numbers[0]
        if numbers == list(range(first, first + self._size)):
            chosen = self._places[first % self._size :][: self._size]
        else:  # at the ends of a clip
            chosen = self._places[[number % self._size for number in numbers]]
        return chosen.movedim(-1, 1)[None]


class _Held:
    """What the windows of a stream need of its last T frames."""

    def __init__(self, size: int) -> None:
        self.count = 0  # frames so far
        self.frames: deque[_Embedded] = deque(maxlen=size)
        self.key, self.value = _Ring(size), _Ring(size)

    def add(self, frame: _Embedded, key: Tensor, value: Tensor) -> None:
        self.frames.append(frame)
        self.key.put(self.count, key)
        self.value.put(self.count, value)
        self.count += 1

    def frame(self, number: int) -> _Embedded:
        return self.frames[number - self.count + len(self.frames)]


def super_resolve(
    model: Mana,
    frames: Iterable[Pixels],
    device: str | torch.device = "cpu",
    padding: Padding = "reflection",
    memory: int | None = None,
    precision: Precision = "fp32",
    wanted: Container[int] | None = None,
) -> Iterator[Pixels]:
    """Super-resolve a video of any length, also one whose length is not known in advance.

    Every frame is embedded once; at most T frames' embeddings are held. The result is that of
    :meth:`mana_dist.model.Mana.forward` on the windows of :func:`mana_dist.model.window_indices`, to rounding.

    Args:
        model: in evaluation mode; it is moved to ``device``.
        frames: (h, w, 3) RGB, uint8 or uint16, all of one size and type; read T//2 frames ahead of what is yielded.
        device: where the model runs.
        padding: the rule for windows that reach beyond the clip's ends.
        memory: bytes that the convolutions' activations may take; a frame that needs more is done in overlapping tiles
            (:mod:`mana_dist.model.tiling`). None: never tiled.
        precision: ``bf16`` runs convolutions and attention in bfloat16 (autocast); the upsampled frame that the
            network's residual is added to stays fp32.
        wanted: numbers of the frames to give, from 0; the others are only looked at. None: all.

    Yields:
        (sh, sw, 3) RGB of the frames' type, s the model's scale, one for each wanted frame, in order.

    Raises:
        ValueError: a frame is not uint8 or uint16 (h, w, 3), or its size or type differs from the first one's.
    """
    size = model.config.frames
    radius = size // 2
    model = _placed(model, device)
    held = _Held(size)
    emitted = 0
    cut: Tiling | None = None
    rounding = autocast(device, precision)
    for frame in _same_size(frames):
        if memory is not None and not held.count:
            element_size = 2 if precision == "bf16" else 4
            cut = tiling.tiling_for(model.config, frame.shape[0], frame.shape[1], memory, element_size)
        with rounding:
            _embed(model, frame, device, cut, held)
        # The first T//2 windows reach before the clip, and the rules look up to T frames into it for them.
        while held.count >= size and emitted + radius < held.count:
            if wanted is None or emitted in wanted:
                with rounding:
                    result = _reconstruct(model, held, window_indices(emitted, held.count, size, padding), cut)
                yield result
            emitted += 1
    for centre in range(emitted, held.count):
        if wanted is not None and centre not in wanted:
            continue
        with rounding:
            result = _reconstruct(model, held, window_indices(centre, held.count, size, padding), cut)
        yield result


def super_resolve_window(
    model: Mana, frames: Frames, device: str | torch.device = "cpu", precision: Precision = "fp32"
) -> Frame:
    """Super-resolve the centre frame of one window.

    Args:
        model: in evaluation mode; it is moved to ``device``.
        frames: (T, h, w, 3) uint8 RGB, T as the model's configuration says.
        device: where the model runs.
        precision: as in :func:`super_resolve`.

    Returns:
        (sh, sw, 3) uint8 RGB, s the model's scale.

    Raises:
        ValueError: another shape or dtype.
    """
    expected = model.config.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != expected or frames.shape[3] != 3:
        raise ValueError(
            f"frames must be uint8 ({expected}, H, W, 3): this model takes windows of {expected} RGB frames; "
            f"got {frames.dtype} {frames.shape}"
        )
    with torch.inference_mode(), autocast(device, precision):
        window = to_tensor(frames).to(device)
        return to_frame(_placed(model, device)(window[None]))


def choose_device(name: str) -> str:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        UserError: ``cuda`` is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu or auto")
    return "cuda" if name == "cuda" or (name == "auto" and available) else "cpu"


def autocast(device: str | torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which a network computes in ``precision``."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def to_tensor(frames: Pixels) -> Tensor:
    """(..., H, W, 3) uint8 or uint16 -> (..., 3, H, W) float32 in [0, 1], contiguous."""
    top = np.iinfo(frames.dtype).max
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float().div(top).contiguous()


def to_frame(image: Tensor, dtype: DTypeLike = np.uint8) -> Pixels:
    """(1, 3, H, W), any range -> (H, W, 3) of ``dtype``, uint8 or uint16.

    Clamped to [0, 1], times the type's highest value, rounded half up.
    """
    kind = np.dtype(dtype)
    scaled = image[0].float().clamp(0, 1).mul(np.iinfo(kind).max).add(0.5)
    quantised = scaled.to(torch.uint8 if kind == np.uint8 else torch.int32)
    return quantised.movedim(0, -1).contiguous().cpu().numpy().astype(kind, copy=False)


def _placed(model: Mana, device: str | torch.device) -> Mana:
    # Convolutions over whole frames run several times faster with the channels innermost, on CPUs most of all.
    return model.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]


def _same_size(frames: Iterable[Pixels]) -> Iterator[Pixels]:
    first: Pixels | None = None
    for number, frame in enumerate(frames):
        first = frame if first is None else first
        known = frame.dtype in (np.uint8, np.uint16) and frame.ndim == 3 and frame.shape[2] == 3
        if not known or frame.shape != first.shape or frame.dtype != first.dtype:
            raise ValueError(
                f"frame {number} is {frame.dtype} {frame.shape}; all frames must be uint8 or uint16 (h, w, 3) of one "
                f"size and type, as the first is {first.dtype} {first.shape}"
            )
        yield frame


def _embed(model: Mana, frame: Pixels, device: str | torch.device, cut: Tiling | None, held: _Held) -> None:
    # inference_mode only around the arithmetic: as a generator's context it would leak into the caller's code.
    with torch.inference_mode():
        pixels = to_tensor(frame)[None].to(device)
        embedding: FrameEmbedding = tiling.embed(model, pixels, cut) if cut else model.embed(pixels)
        held.add(_Embedded(frame.dtype, pixels, embedding.feature), embedding.key, embedding.value)


def _reconstruct(model: Mana, held: _Held, window: list[int], cut: Tiling | None) -> Pixels:
    """The centre of ``window``, numbers of held frames."""
    with torch.inference_mode():
        centre = held.frame(window[len(window) // 2])
        embedded = (centre.pixels, centre.feature, held.key.window(window), held.value.window(window))
        result = tiling.reconstruct(model, *embedded, cut) if cut else model.reconstruct(*embedded)
        return to_frame(result, centre.dtype)
