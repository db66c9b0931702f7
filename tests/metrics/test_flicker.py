"""Flicker against loops over pixels, and what it must be for errors that are known."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.metrics import Trail, flicker, follow
from mana_dist.metrics.trail import LARGEST_CHANGE

Frame = NDArray[np.uint8]
SIZE = (12, 16)
STILL = np.zeros((*SIZE, 2), np.float32)


def noise(seed: int, low: int = 60, high: int = 190) -> Frame:
    return np.random.default_rng(seed).integers(low, high, (*SIZE, 3)).astype(np.uint8)


def sampled(frame: Frame, column: float, row: float) -> list[float] | None:
    """The three channels there, by the weights of the four pixels around; None outside."""
    height, width = frame.shape[:2]
    if not (0 <= column <= width - 1 and 0 <= row <= height - 1):
        return None
    left, top = math.floor(column), math.floor(row)
    found = [0.0, 0.0, 0.0]
    for x, y in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - abs(column - x)) * (1 - abs(row - y))
        if weight:
            for channel in range(3):
                found[channel] += weight * float(frame[y, x, channel])
    return found


def by_hand(
    outputs: tuple[Frame, Frame], truths: tuple[Frame, Frame], flow: NDArray[np.float32]
) -> tuple[float, list[tuple[int, int]]]:
    """The difference of the method's change along the motion and the truth's; and the pixels that were followed."""
    differences, followed = [], []
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            place = column + float(flow[row, column, 0]), row + float(flow[row, column, 1])
            truth, output = sampled(truths[0], *place), sampled(outputs[0], *place)
            if truth is None or output is None:
                continue
            changes = [
                (float(now[row, column, channel]) - earlier[channel])
                for now, earlier in ((outputs[1], output), (truths[1], truth))
                for channel in range(3)
            ]
            if sum(map(abs, changes[3:])) / 3 > LARGEST_CHANGE:
                continue
            followed.append((row, column))
            differences += [abs(mine - real) for mine, real in zip(changes[:3], changes[3:], strict=True)]
    return sum(differences) / len(differences), followed


def test_it_is_the_difference_of_the_changes_along_the_motion() -> None:
    before = noise(0, 100, 130)
    now = np.clip(before + np.random.default_rng(1).normal(0, 14, before.shape), 0, 255).astype(np.uint8)
    outputs = noise(2), noise(3)
    # 32nds of a pixel are exact.
    flow = (np.random.default_rng(4).integers(-64, 64, STILL.shape) / 32).astype(np.float32)
    trail = follow(before, now, flow)
    assert trail is not None
    expected, followed = by_hand(outputs, (before, now), flow)
    assert 0.5 < len(followed) / now[..., 0].size < 0.9
    assert list(zip(*(axis.tolist() for axis in trail.seen.nonzero()), strict=True)) == followed
    assert flicker((outputs[0], before), (outputs[1], now), trail) == pytest.approx(expected, rel=1e-5)


def still() -> Trail:
    trail = follow(noise(0), noise(0), STILL)
    assert trail is not None
    return trail


def test_the_truth_and_what_differs_from_it_by_a_constant_have_none() -> None:
    before, now = noise(0), noise(1)
    assert flicker((before, before), (now, now), still()) == 0
    assert flicker((before + np.uint8(9), before), (now + np.uint8(9), now), still()) == 0
    assert flicker((before + noise(2, 0, 40), before), (now + noise(2, 0, 40), now), still()) == 0


@pytest.mark.parametrize("amplitude", [1, 7, 60])
def test_an_error_of_every_other_frame_is_its_own_size(amplitude: int) -> None:
    before, now, error = noise(0), noise(1), np.uint8(amplitude)
    assert flicker((before + error, before), (now, now), still()) == amplitude
    assert flicker((before, before), (now + error, now), still()) == amplitude


def test_only_what_was_followed_counts() -> None:
    truth, flow = noise(0), STILL.copy()
    flow[:, :4, 0] = -5  # from outside
    now = truth.copy()
    now[:, 12:] = 255 - now[:, 12:] // 4  # another thing
    trail = follow(truth, now, flow)
    assert trail is not None
    assert np.flatnonzero(trail.seen.any(axis=0)).tolist() == list(range(4, 12))
    output = now.copy()
    output[:, :4], output[:, 12:] = 0, 0
    assert flicker((truth, truth), (output, now), trail) == 0
    output[:, 4] += 16
    assert flicker((truth, truth), (output, now), trail) == 2


@pytest.mark.parametrize("columns", [8, 9])
def test_less_than_half_of_a_frame_is_not_followed(columns: int) -> None:
    truth = noise(0)
    now = truth.copy()
    now[:, :columns] += LARGEST_CHANGE + 1
    assert (follow(truth, now, STILL) is None) == (columns == 9)
