"""The cuts of a video: a function of its keyframes alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mana_dist.upscale.segments import plan
from mana_dist.video.keyframes import Cut


@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 60), st.integers(8, 100), st.integers(0, 30))
def test_segments_cover_all_frames_once_and_begin_at_keyframes(
    groups: list[int], last: int, length: int, context: int
) -> None:
    numbers = [0, *itertools.accumulate(groups)]
    cuts = [Cut(1000 + 40 * number, number) for number in numbers]
    frames = numbers[-1] + last
    segments = plan(cuts, frames, length, context)
    assert [segment.number for segment in segments] == list(range(len(segments)))
    assert segments[0].start == 0
    assert segments[-1].stop is None
    for one, other in itertools.pairwise(segments):
        assert one.stop == other.start
        assert one.pts_stop == other.pts
        assert Cut(other.pts or -1, other.start) in cuts
        assert one.stop - one.start >= length
    for segment in segments:
        # Decoding begins far enough before it, at the last keyframe that does.
        fit = [cut for cut in cuts if 0 < cut.number <= segment.start - context]
        assert segment.seek == (fit[-1] if fit else None)


@given(st.integers(0, 3000), st.integers(8, 300))
def test_without_keyframes_segments_are_cut_by_count(frames: int, length: int) -> None:
    segments = plan((), frames, length, 10)
    assert segments[0].start == 0
    assert segments[-1].stop is None
    assert all(segment.seek is None and segment.pts is None for segment in segments)
    assert all(one.stop == other.start == one.start + length for one, other in itertools.pairwise(segments))
    assert frames - segments[-1].start < 1.5 * length + 1


@pytest.mark.parametrize(("frames", "expected"), [(240, 1), (359, 1), (361, 2), (10_000, 42)])
def test_a_segment_has_about_240_frames(frames: int, expected: int) -> None:
    cuts = [Cut(number, number) for number in range(0, frames, 12)]
    assert len(plan(cuts, frames, 240, 14)) == expected
