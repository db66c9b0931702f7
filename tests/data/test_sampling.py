"""Cutting clips into samples: which frames, of which values, with which motion."""

import itertools

import numpy as np
import pytest

from mana_dist.data.degradation import Degradation, degrade
from mana_dist.data.sampling import flow_magnitude, make_samples
from tests.data.videos import moving_frames, noise_frames


@pytest.mark.parametrize(
    ("window", "stride", "centres"), [(7, 1, [3, 4, 5, 6]), (7, 3, [3, 6]), (3, 4, [1, 5]), (1, 5, [0, 5])]
)
def test_centres_have_their_whole_window_in_the_clip(window: int, stride: int, centres: list[int]) -> None:
    frames = noise_frames(10)
    lr = degrade(frames, Degradation.BI)
    samples = list(make_samples(iter(frames), Degradation.BI, frames_per_sample=window, stride=stride))
    assert [sample.centre for sample in samples] == centres
    for sample in samples:
        half = window // 2
        np.testing.assert_array_equal(sample.lr, lr[sample.centre - half : sample.centre + half + 1])
        np.testing.assert_array_equal(sample.hr, frames[sample.centre])


def test_centres_count_from_the_sources_first_frame() -> None:
    assert [s.centre for s in make_samples(noise_frames(8), Degradation.BI, first=100)] == [103, 104]


def test_clip_shorter_than_a_window_gives_nothing() -> None:
    assert list(make_samples(noise_frames(6), Degradation.BI)) == []


def test_odd_sizes_are_cropped_at_the_bottom_and_right() -> None:
    frames = noise_frames(7, 67, 98)
    (sample,) = make_samples(frames, Degradation.BD)
    np.testing.assert_array_equal(sample.hr, frames[3, :64, :96])
    np.testing.assert_array_equal(sample.lr, degrade(frames[:, :64, :96], Degradation.BD))


def test_flow_is_the_motion_in_lr_pixels_per_frame() -> None:
    frames = moving_frames(7, 256, 384, step=8)
    (sample,) = make_samples(frames, Degradation.BI)
    assert sample.flow == pytest.approx(2.0, abs=0.3)  # 8 HR pixels are 2 LR pixels
    still = np.repeat(frames[:1], 7, axis=0)
    assert next(make_samples(still, Degradation.BI)).flow == pytest.approx(0.0, abs=0.02)


def test_flow_is_averaged_over_the_windows_pairs() -> None:
    lr = degrade(moving_frames(7, 128, 192), Degradation.BI)
    (sample,) = make_samples(moving_frames(7, 128, 192), Degradation.BI)
    pairs = [flow_magnitude(before, after) for before, after in itertools.pairwise(lr)]
    assert sample.flow == pytest.approx(sum(pairs) / 6)
