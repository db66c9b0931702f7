"""Several windows through the network at once. Nothing of Ray in it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mana_dist.model import Mana
from mana_dist.model.inference import Frame, Frames, autocast, super_resolve, to_frame, to_tensor
from mana_dist.model.precision import Precision
from mana_dist.model.tiling import bytes_per_pixel


def super_resolve_windows(
    model: Mana, windows: Sequence[Frames], device: str, precision: Precision, memory: int
) -> list[Frame]:
    """Super-resolve the centre frames of windows; those of one size share calls of the network.

    Args:
        model: in evaluation mode; it is moved to ``device``.
        windows: each (T, h, w, 3) uint8 RGB, T as the model was trained; sizes may differ.
        device: where the model runs.
        precision: as in :func:`mana_dist.model.inference.super_resolve`.
        memory: bytes that the convolutions' activations may take; of windows that need more together fewer are done at
            a time, one that needs more alone is done in tiles.

    Returns:
        (sh, sw, 3) uint8 RGB at the model's scale s, one for each window, in order.
    """
    model = model.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, window in enumerate(windows):
        by_shape[window.shape].append(number)
    results: dict[int, Frame] = {}
    per_pixel = bytes_per_pixel(model.config, 2 if precision == "bf16" else 4)
    for shape, numbers in by_shape.items():
        fitting = memory // (per_pixel * shape[1] * shape[2])
        for begin in range(0, len(numbers), max(fitting, 1)):
            chosen = numbers[begin : begin + max(fitting, 1)]
            several = [windows[number] for number in chosen]
            done = (
                _together(model, several, device, precision)
                if fitting
                else _tiled(model, several[0], device, precision, memory)
            )
            results.update(zip(chosen, done, strict=True))
    return [results[number] for number in range(len(windows))]


def super_resolve_each(
    model: Mana, windows: Sequence[Frames], device: str, precision: Precision, memory: int
) -> list[Frame | Exception]:
    """As :func:`super_resolve_windows`; where that fails each window alone, so that it fails only for those to blame.

    Returns:
        One for each window, in order: the frame, or what it failed with.
    """
    try:
        return list(super_resolve_windows(model, windows, device, precision, memory))
    except Exception as error:
        if len(windows) == 1:
            return [error]
    return [result for one in windows for result in super_resolve_each(model, [one], device, precision, memory)]


def _together(model: Mana, windows: Sequence[Frames], device: str, precision: Precision) -> Iterator[Frame]:
    with torch.inference_mode(), autocast(device, precision):
        images = model(to_tensor(np.stack(windows)).to(device))
    return (to_frame(image[None]) for image in images)


def _tiled(model: Mana, window: Frames, device: str, precision: Precision, memory: int) -> Iterator[Frame]:
    centre = (len(window) // 2,)
    return super_resolve(model, window, device, memory=memory, precision=precision, wanted=centre)
