"""Cutting clips into samples: which frames, of which values, with which motion."""

import dataclasses
import gc
import itertools
import weakref
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BD, BI, degrade
from mana_dist.data.frame_quality import detail
from mana_dist.data.resize import imresize
from mana_dist.data.samples import Sample
from mana_dist.data.sampling import Sampler, Tally, flow_magnitude, greatest_change
from mana_dist.errors import UserError
from mana_dist.video.shots import CUT_MARGIN
from tests.data.scenes import scene
from tests.video.videos import moving_frames, noise_frames

Frames = NDArray[np.uint8]

EVERY_WINDOW = SampleSettings(detect_cuts=False, min_change=0, min_detail=0)


def make(frames: Frames, wanted: SampleSettings = EVERY_WINDOW, first: int = 0, downscale: int = 1) -> list[Sample]:
    return list(Sampler(wanted, downscale).samples(enumerate(frames, first), first=first))


def centres(samples: list[Sample]) -> list[int]:
    return [sample.centre for sample in samples]


@pytest.mark.parametrize(
    ("window", "stride", "expected"), [(7, 1, [3, 4, 5, 6]), (7, 3, [3, 6]), (3, 4, [1, 5]), (1, 5, [0, 5])]
)
def test_centres_have_their_whole_window_in_the_clip(window: int, stride: int, expected: list[int]) -> None:
    frames = noise_frames(10)
    lr = degrade(frames, BI)
    wanted = SampleSettings(frames_per_sample=window, stride=stride, detect_cuts=False, min_change=0.5, min_detail=0.25)
    samples = make(frames, wanted)
    assert centres(samples) == expected
    for sample in samples:
        half = window // 2
        np.testing.assert_array_equal(sample.lr, lr[sample.centre - half : sample.centre + half + 1])
        np.testing.assert_array_equal(sample.hr, frames[sample.centre])
        assert (sample.top, sample.left) == (0, 0)


def test_centres_count_from_the_sources_first_frame() -> None:
    assert centres(make(noise_frames(8), first=100)) == [103, 104]


def test_clip_shorter_than_a_window_gives_nothing() -> None:
    assert make(noise_frames(6)) == []


def test_odd_sizes_are_cropped_at_the_bottom_and_right() -> None:
    frames = noise_frames(7, 67, 98)
    (sample,) = make(frames, SampleSettings(degradation=BD, detect_cuts=False))
    np.testing.assert_array_equal(sample.hr, frames[3, :64, :96])
    np.testing.assert_array_equal(sample.lr, degrade(frames[:, :64, :96], BD))


@pytest.mark.parametrize(("scale", "patch"), [(2, 0), (3, 0), (2, 20)])
def test_samples_of_other_scales_are_made_by_the_degradation_at_that_scale(scale: int, patch: int) -> None:
    frames = noise_frames(7, 67, 97)
    wanted = SampleSettings(scale=scale, patch=patch, detect_cuts=False)
    height, width = 67 - 67 % scale, 97 - 97 % scale
    lr = degrade(frames[:, :height, :width], BI, scale)
    samples = make(frames, wanted)
    assert len(samples) == (2 * 3 if patch else 1)  # 33 x 48 LR pixels in patches of 20
    for sample in samples:
        rows = slice(sample.top, sample.top + (patch or lr.shape[1]))
        columns = slice(sample.left, sample.left + (patch or lr.shape[2]))
        np.testing.assert_array_equal(sample.lr, lr[:, rows, columns])
        whole = frames[3, scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop]
        np.testing.assert_array_equal(sample.hr, whole)
    assert wanted.empty_manifest().scale == scale


def test_a_degradation_that_is_not_defined_for_a_scale_is_refused() -> None:
    with pytest.raises(UserError, match="degradation BD is defined for scale 4, not 2; take BI"):
        SampleSettings(degradation=BD, scale=2)


def test_frames_are_shrunk_before_they_are_taken_as_hr() -> None:
    frames = noise_frames(7, 201, 302)
    (sample,) = make(frames, downscale=3)
    shrunk = np.stack([imresize(frame[:201, :300], 67, 100) for frame in frames])[:, :64, :100]
    np.testing.assert_array_equal(sample.hr, shrunk[3])
    np.testing.assert_array_equal(sample.lr, degrade(shrunk, BI))


def test_frames_that_are_too_small_are_left_out_and_counted() -> None:
    sampler = Sampler(EVERY_WINDOW)
    assert list(sampler.samples(enumerate(noise_frames(9, 60, 96)))) == []  # 15 LR rows
    assert sampler.tally == Tally(frames=9, small=9)


def test_a_sample_crosses_no_shot_cut() -> None:
    frames = np.concatenate([scene(0, 9), scene(1, 6), scene(2, 8)])  # the middle one is too short for a window
    sampler = Sampler(SampleSettings())
    assert centres(list(sampler.samples(enumerate(frames)))) == [3, 4, 5, 18, 19]
    assert sampler.tally == Tally(frames=23, cuts=2, samples=5)
    assert len(make(frames, SampleSettings(detect_cuts=False))) == 17


def test_frames_that_repeat_are_left_out_of_windows() -> None:
    """24 pictures per second shown as 60: every picture two or three times."""
    frames = scene(0, 9)
    shown = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 8]
    sampler = Sampler(SampleSettings())
    samples = list(sampler.samples(enumerate(frames[shown])))
    assert centres(samples) == [shown.index(picture) for picture in (3, 4, 5)]
    np.testing.assert_array_equal(samples[0].lr, degrade(frames[:7], BI))
    assert sampler.tally == Tally(frames=21, duplicates=12, samples=3)
    assert len(make(frames[shown], SampleSettings(min_change=0))) == 15


def test_a_small_thing_that_moves_makes_another_frame() -> None:
    still = np.repeat(scene(0, 1), 7, axis=0)
    for number, frame in enumerate(still):
        frame[20:28, 8 * number : 8 * number + 8] //= 2
    assert len(make(still, SampleSettings(detect_cuts=False))) == 1


def test_frames_that_change_too_little_add_up() -> None:
    """A change below the limit is not lost: the frame is compared with the last that was kept."""
    ramp = np.arange(12)[:, None, None, None] + np.repeat(scene(0, 1) // 2, 12, axis=0)  # one grey level per frame
    sampler = Sampler(SampleSettings(min_change=2.5, frames_per_sample=3))
    assert centres(list(sampler.samples(enumerate(ramp.astype(np.uint8))))) == [3, 6]
    assert sampler.tally.duplicates == 8


def test_frames_without_detail_make_no_samples_but_stand_in_windows() -> None:
    frames = noise_frames(10)
    frames[4:6] = 90
    sampler = Sampler(SampleSettings(detect_cuts=False, min_change=0))
    assert centres(list(sampler.samples(enumerate(frames)))) == [3, 6]
    assert sampler.tally == Tally(frames=10, flat=2, samples=2)


def test_of_a_slot_the_first_with_detail_enough_is_taken() -> None:
    frames = noise_frames(13)
    frames[3:5] = 90
    wanted = SampleSettings(stride=3, detect_cuts=False, min_change=0)
    assert centres(make(frames, wanted)) == [5, 6, 9]


def test_flow_is_the_motion_in_lr_pixels_per_frame() -> None:
    frames = moving_frames(7, 256, 384, step=8)
    (sample,) = make(frames)
    assert sample.flow == pytest.approx(2.0, abs=0.3)  # 8 HR pixels are 2 LR pixels
    still = np.repeat(frames[:1], 7, axis=0)
    assert make(still)[0].flow == pytest.approx(0.0, abs=0.02)


def test_flow_is_averaged_over_the_windows_pairs() -> None:
    frames = moving_frames(9, 128, 192)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in degrade(frames, BI)]
    pairs = [float(np.mean(flow_magnitude(before, after))) for before, after in itertools.pairwise(grey)]
    assert [sample.flow for sample in make(frames)] == pytest.approx([np.mean(pairs[i : i + 6]) for i in range(3)])


def test_patches_cover_the_frame_each_with_its_own_detail_and_flow() -> None:
    frames = np.repeat(noise_frames(1, 160, 224), 7, axis=0)  # LR 40 x 56
    frames[:, :64, :64] = 100  # no detail in the first patch
    frames[:, 96:] = np.concatenate([moving_frames(7, 64, 224, step=8)])  # the bottom row moves
    sampler = Sampler(SampleSettings(patch=16, detect_cuts=False, min_change=0, min_detail=1))
    samples = list(sampler.samples(enumerate(frames)))
    places = [(sample.top, sample.left) for sample in samples]
    assert places == [(top, left) for top in (0, 16, 24) for left in (0, 16, 32, 40) if top or left]
    assert sampler.tally == Tally(frames=7, flat=1, samples=11)
    lr = degrade(frames, BI)
    for sample in samples:
        top, left = sample.top, sample.left
        np.testing.assert_array_equal(sample.lr, lr[:, top : top + 16, left : left + 16])
        np.testing.assert_array_equal(sample.hr, frames[3, 4 * top : 4 * top + 64, 4 * left : 4 * left + 64])
    assert max(sample.flow for sample in samples if sample.top == 0) < 0.5
    assert min(sample.flow for sample in samples if sample.top == 24) > 1


def test_frames_smaller_than_a_patch_are_left_out() -> None:
    sampler = Sampler(SampleSettings(patch=20, detect_cuts=False))
    assert list(sampler.samples(enumerate(noise_frames(7, 76, 200)))) == []
    assert sampler.tally == Tally(frames=7, small=7)


def test_detail_is_the_mean_difference_of_neighbours() -> None:
    frame = noise_frames(1, 20, 30)[0]
    luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(float)
    expected = (np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()) / 2
    assert detail(frame) == pytest.approx(expected)
    assert detail(np.full((16, 16, 3), 7, np.uint8)) == 0


@pytest.mark.parametrize("size", [(16, 24), (21, 17), (5, 30)])
def test_greatest_change_is_that_of_the_block_that_changed_most(size: tuple[int, int]) -> None:
    before, after = noise_frames(2, *size)[..., 0]
    difference = np.abs(before.astype(float) - after)
    height, width = min(8, size[0]), min(8, size[1])
    blocks = np.lib.stride_tricks.sliding_window_view(difference, (height, width))
    assert greatest_change(before, after) == pytest.approx(blocks.mean(axis=(2, 3)).max(), abs=1e-5)


PALETTE = noise_frames(5)
LARGER = noise_frames(5, 68, 96, seed=1)
FLAT = np.stack([np.full((64, 96, 3), value, np.uint8) for value in (0, 60, 120, 180, 240)])


@settings(max_examples=150, deadline=None)
@given(
    script=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 1, 1, 2, 5]), st.sampled_from("nnnnnlf"), st.integers(0, 4)), max_size=40
    ),
    window=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 5),
    first=st.integers(0, 9),
)
def test_samples_are_those_of_the_rules_taken_literally(
    script: list[tuple[int, str, int]], window: int, stride: int, first: int
) -> None:
    kinds = {"n": PALETTE, "l": LARGER, "f": FLAT}
    numbers = [first + place for place in itertools.accumulate(gap for gap, _, _ in script)]
    looks = [(kind, which) for _, kind, which in script]

    runs: list[list[tuple[int, tuple[str, int]]]] = []
    size_before, number_before = "", -1
    for number, look in zip(numbers, looks, strict=True):
        size = "large" if look[0] == "l" else "small"
        if not runs or number != number_before + 1 or size != size_before:
            runs.append([(number, look)])
        elif look != runs[-1][-1][1]:
            runs[-1].append((number, look))
        size_before, number_before = size, number
    half = window // 2
    slots: dict[int, int] = {}
    for run in runs:
        for number, look in run[half : len(run) - half]:
            if look[0] != "f":
                slots.setdefault((number - first - half) // stride, number)

    wanted = SampleSettings(frames_per_sample=window, stride=stride, detect_cuts=False)
    frames = ((number, kinds[kind][which]) for number, (kind, which) in zip(numbers, looks, strict=True))
    sampler = Sampler(wanted)
    assert centres(list(sampler.samples(frames, first=first))) == list(slots.values())
    assert sampler.tally.frames - sampler.tally.duplicates == sum(map(len, runs))


@settings(max_examples=25, deadline=None)
@given(
    shots=st.lists(st.integers(1, 15), min_size=1, max_size=7),
    borders=st.sets(st.integers(8, 60), max_size=3),
    stride=st.sampled_from([1, 3]),
)
def test_segments_give_together_what_the_whole_clip_gives(shots: list[int], borders: set[int], stride: int) -> None:
    """Each segment begins CUT_MARGIN frames before the windows of its centres and ends as many after them."""
    frames = np.concatenate([scene(seed, length) for seed, length in enumerate(shots)])
    wanted = SampleSettings(stride=stride)
    whole = Sampler(wanted)
    expected = list(whole.samples(enumerate(frames)))
    samples: list[Sample] = []
    tally = Tally()
    for begin, end in itertools.pairwise([0, *sorted(borders), 1000]):
        start, stop = max(0, begin - 3 - CUT_MARGIN), end + 3 + CUT_MARGIN
        sampler = Sampler(wanted)
        samples += sampler.samples(
            itertools.islice(enumerate(frames), start, min(stop, len(frames))), centres=range(begin, end)
        )
        tally += sampler.tally
    assert (tally.frames, tally.cuts) == (whole.tally.frames, whole.tally.cuts)
    if stride == 1:
        assert centres(samples) == centres(expected)
        for one, other in zip(samples, expected, strict=True):
            np.testing.assert_array_equal(one.lr, other.lr)
            assert one.flow == other.flow
    else:
        slots = [(sample.centre - 3) // stride for sample in samples]
        assert len(set(slots)) == len(slots)


def test_memory_is_bounded_and_samples_come_at_once() -> None:
    alive: set[int] = set()
    most = read = 0

    def stream() -> Iterator[tuple[int, Frames]]:
        nonlocal most, read
        for read in range(60):
            frame = noise_frames(1, seed=read)[0].copy()  # owns its pixels: lives as long as they do
            alive.add(read)
            weakref.finalize(frame, alive.discard, read)
            gc.collect()
            most = max(most, len(alive))
            yield read, frame

    gc.freeze()  # what all libraries hold need not be looked through sixty times
    try:
        for sample in Sampler(SampleSettings()).samples(stream()):
            assert read <= sample.centre + 3 + CUT_MARGIN
    finally:
        gc.unfreeze()
    assert most <= 4 + CUT_MARGIN + 3  # the centre and those after it, those looked ahead at, those being worked on


def test_samples_that_move_too_little_or_too_much_are_left_out() -> None:
    """Of a film of three shots that move 0, 4 and 12 HR pixels a frame, so 0, 1 and 3 LR pixels."""
    shots = [scene(seed, 12, step=step) for seed, step in enumerate((0, 4, 12))]
    frames = list(enumerate(np.concatenate(shots)))
    whole = SampleSettings(min_change=0)
    flows = {sample.centre: sample.flow for sample in Sampler(whole).samples(frames)}
    assert [flows[centre] for centre in (6, 18)] == pytest.approx([0, 1], abs=0.3)
    assert flows[30] > 1.5
    for least, most in ((0.5, None), (0.0, 1.4), (0.5, 1.4)):
        wanted = dataclasses.replace(whole, min_motion=least, max_motion=most)
        sampler = Sampler(wanted)
        centres = [sample.centre for sample in sampler.samples(frames)]
        assert centres == [centre for centre, flow in flows.items() if least <= flow <= (most or np.inf)]
        assert sampler.tally.wrong_motion == len(flows) - len(centres)
        assert 0 < len(centres) < len(flows)
    slots = dataclasses.replace(whole, stride=36, min_motion=0.5)  # of a slot the first that moves as wanted
    assert [sample.centre for sample in Sampler(slots).samples(frames)] == [15]
