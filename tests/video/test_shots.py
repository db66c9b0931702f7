"""Shot cuts: where pictures change at once, and nowhere else, however fast they move."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.video.reading import read_frames
from mana_dist.video.shots import CUT_MARGIN, mark_cuts
from tests.data.scenes import scene


def cuts(frames: NDArray[np.uint8]) -> list[int]:
    marked = list(mark_cuts(enumerate(frames), lambda item: item[1]))
    assert [item[0] for item, _ in marked] == list(range(len(frames)))  # every item, in order
    return [item[0] for item, is_cut in marked if is_cut]


@pytest.mark.parametrize("before", [1, 2, 3, 4, 8, 20])
@pytest.mark.parametrize("after", [1, 2, 3, 20])
def test_a_cut_is_found_however_near_an_end(before: int, after: int) -> None:
    assert cuts(np.concatenate([scene(0, before), scene(1, after)])) == [before]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_two_cuts_are_found_however_near_each_other(length: int) -> None:
    """A flash of one frame is a shot of its own, too."""
    shots = [scene(0, 10), scene(1, length), scene(2, 10)]
    assert cuts(np.concatenate(shots)) == [10, 10 + length]


def test_motion_is_no_cut() -> None:
    fast = scene(3, 30, step=25)
    assert differences(fast).min() > 15  # more than a cut must change
    assert cuts(fast) == []
    assert cuts(scene(0, 7, step=25)) == []


def test_a_cut_between_moving_shots_is_found() -> None:
    assert cuts(np.concatenate([scene(0, 12, step=2), scene(1, 12, step=2)])) == [12]


def test_dissolves_are_no_cuts() -> None:
    one, other = scene(0, 24), scene(1, 24)
    share = np.linspace(0, 1, 24)[:, None, None, None]
    assert cuts(((1 - share) * one + share * other).astype(np.uint8)) == []


def test_frames_that_stand_still_or_are_missing_have_no_cuts() -> None:
    assert cuts(np.repeat(scene(0, 1), 12, axis=0)) == []
    assert cuts(np.zeros((0, 16, 24, 3), np.uint8)) == []
    assert cuts(scene(0, 1)) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_rule_is_the_documented_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 12, 8)
    steps = random.integers(0, 4, 8)
    frames = np.concatenate(
        [scene(10 * seed + i, int(lengths[i]), int(steps[i]), height=36, width=48) for i in range(len(lengths))]
    )
    changes = np.pad(differences(frames), CUT_MARGIN)
    expected = []
    for place in range(1, len(frames)):
        near = changes[place - 1 : place + 2 * CUT_MARGIN]
        others = np.delete(near, CUT_MARGIN).mean()
        if near[CUT_MARGIN] >= 15 and near[CUT_MARGIN] >= 3 * others:
            expected.append(place)
    assert cuts(frames) == expected
    assert expected  # else the case shows nothing


def test_large_frames_are_judged_by_a_small_picture_of_them() -> None:
    frames = np.concatenate([scene(0, 6, height=300, width=960), scene(1, 6, height=300, width=960)])
    assert cuts(frames) == [6]


def test_it_reads_no_further_ahead_than_it_says() -> None:
    read = 0

    def counted() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for frame in scene(0, 20):
            read += 1
            yield frame

    for number, _ in enumerate(mark_cuts(counted(), lambda frame: frame)):
        assert read <= number + 1 + CUT_MARGIN


def test_real_clips_have_their_cuts_found_and_no_others() -> None:
    """Pieces of real clips one after the other: 1,000 such pairs gave 97.5 %, most of the rest of one fast drone."""
    clips = sorted(Path(os.environ["MANA_TEST_CLIPS"]).glob("edgetam_*.mp4")) if "MANA_TEST_CLIPS" in os.environ else []
    if not clips:
        pytest.skip("needs real clips: set MANA_TEST_CLIPS to a folder that holds the edgetam_*.mp4")
    pieces = []
    for clip in clips[:12]:
        frames = [cv2.resize(frame, (256, 144)) for frame in read_frames(str(clip), 0, 10)]
        pieces.append(np.stack(frames))
    for piece in pieces:
        assert cuts(piece) == []
    found = [cuts(np.concatenate([one, other])) == [len(one)] for one in pieces for other in pieces if one is not other]
    assert sum(found) >= 0.97 * len(found)


def differences(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean change of hue, saturation and value from each frame to the next."""
    hsv = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2HSV) for frame in frames]).astype(float)
    return np.abs(np.diff(hsv, axis=0)).mean(axis=(1, 2, 3))
