"""Cutting a stream of frames into training samples: windows of degraded frames with their centre frame."""

from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation import Degradation, crop_to_multiple, degrade
from mana_dist.data.samples import Sample


def make_samples(
    frames: Iterable[NDArray[np.uint8]],
    degradation: Degradation,
    *,
    scale: int = 4,
    frames_per_sample: int = 7,
    stride: int = 1,
    first: int = 0,
) -> Iterator[Sample]:
    """Stream samples out of a clip: every ``stride``-th centre that has its whole window in the clip; no padding.

    Holds ``frames_per_sample`` LR and half as many HR frames; every frame is degraded once. HR frames are cropped,
    top left kept, to multiples of ``scale``.

    Args:
        frames: uint8 (H, W, 3), RGB, all of one size.
        degradation: how LR is made.
        scale: HR side over LR side.
        frames_per_sample: T, odd.
        stride: frames between neighbouring centres.
        first: frame number of the first of ``frames`` in its source.

    Yields:
        samples in the order of their centres.
    """
    cv2.setNumThreads(1)  # one CPU per clip: parallelism comes from many clips
    half = frames_per_sample // 2
    lr_window: deque[NDArray[np.uint8]] = deque(maxlen=frames_per_sample)
    motion: deque[float] = deque(maxlen=frames_per_sample - 1)
    hr_window: deque[NDArray[np.uint8]] = deque(maxlen=half + 1)
    for number, frame in enumerate(frames):
        hr = crop_to_multiple(frame, scale)
        lr = degrade(hr, degradation, scale)
        if lr_window:
            motion.append(flow_magnitude(lr_window[-1], lr))
        lr_window.append(lr)
        hr_window.append(hr)
        windows_before = number + 1 - frames_per_sample
        if windows_before >= 0 and windows_before % stride == 0:
            flow = float(np.mean(motion)) if motion else 0.0
            yield Sample(lr=np.stack(lr_window), hr=hr_window[0], centre=first + number - half, flow=flow)


def flow_magnitude(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Mean length of Farneback's dense optical flow between two frames, pixels.

    Args:
        before: uint8 (h, w, 3), RGB.
        after: the next frame, of the same size.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    # OpenCV's usual settings: three pyramid levels follow motion of some tens of pixels.
    flow = cv2.calcOpticalFlowFarneback(
        grey[0], grey[1], None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )
    return float(np.mean(np.hypot(flow[..., 0], flow[..., 1])))
