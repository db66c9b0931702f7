"""Flicker: how much a method's frames change along the motion where the ground truth does not, or otherwise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mana_dist.metrics.metric import Compared, Metric, PairMeasure
from mana_dist.metrics.trail import LARGEST_CHANGE, LEAST_SHARE, Trail, carry


def flicker(before: Compared, now: Compared, trail: Trail) -> float:
    """Return the mean difference between a method's change along the motion and the ground truth's.

    Args:
        before: the method's frame before, and the ground truth of that: (H, W, 3) uint8 RGB.
        now: this frame of both.
        trail: where this frame's pixels were in the frame before.

    Returns:
        Grey levels of 255, over the pixels that were followed and the three channels; 0 for the ground truth itself.
    """
    # Sampling is linear, so that the difference of the changes is the change of the differences: one picture is
    # carried along the motion instead of two.
    change = cv2.absdiff(_error(now), carry(_error(before), trail.places))
    return sum(cv2.mean(change, trail.seen)[:3]) / 3


def _error(compared: Compared) -> NDArray[np.float32]:
    error: NDArray[np.float32] = cv2.subtract(*compared, dtype=cv2.CV_32F)
    return error


FLICKER = Metric(
    name="flicker",
    label="flicker",
    unit="grey levels",
    what="change between neighbouring frames, along the motion, that the ground truth does not have",
    definition=(
        "of two neighbouring scored frames: mean over pixels and channels of the absolute difference between the "
        "method's change along the motion and the ground truth's, levels of 255; motion: Farneback's flow of the "
        "ground truth's luma from the frame to the one before, found at half size, sampled bilinearly; without pixels "
        f"that come from outside or change by more than {LARGEST_CHANGE} (mean of R, G and B) in the ground truth; "
        f"without pairs of frames in which fewer than {LEAST_SHARE:.0%} of the pixels are left, as at cuts; mean over "
        "the pairs of a clip, then over the clips that have one"
    ),
    digits=2,
    larger_is_better=False,
    smallest_side=1,
    in_sweeps=False,
    load=lambda _: PairMeasure(flicker),
    partial=True,
)
