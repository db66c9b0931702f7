"""Clip ends: the rules that BasicSR documents, by its own examples."""

import pytest

from mana_dist.model import Padding, window_indices


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("replicate", [0, 0, 0, 1, 2]),
        ("reflection", [2, 1, 0, 1, 2]),
        ("reflection_circle", [4, 3, 0, 1, 2]),
        ("circle", [3, 4, 0, 1, 2]),
    ],
)
def test_rules_at_the_start(padding: Padding, expected: list[int]) -> None:
    assert window_indices(0, 100, 5, padding) == expected


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("replicate", [97, 98, 99, 99, 99]),
        ("reflection", [97, 98, 99, 98, 97]),
        ("reflection_circle", [97, 98, 99, 96, 95]),
        ("circle", [97, 98, 99, 95, 96]),
    ],
)
def test_rules_at_the_end(padding: Padding, expected: list[int]) -> None:
    assert window_indices(99, 100, 5, padding) == expected


@pytest.mark.parametrize("padding", ["replicate", "reflection", "reflection_circle", "circle"])
@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize("frames", [1, 3, 7])
def test_any_length_gives_a_whole_window_about_its_centre(padding: Padding, length: int, frames: int) -> None:
    for centre in range(length):
        window = window_indices(centre, length, frames, padding)
        assert len(window) == frames
        assert window[frames // 2] == centre
        assert all(0 <= index < length for index in window)
        for offset, index in enumerate(window, start=centre - frames // 2):
            assert index == offset or not 0 <= offset < length


def test_a_clip_too_short_to_mirror_once_is_mirrored_again() -> None:
    assert window_indices(0, 2, 7) == [1, 0, 1, 0, 1, 0, 1]
    assert window_indices(0, 1, 7) == [0] * 7


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        window_indices(5, 5, 7)
    with pytest.raises(ValueError, match="odd"):
        window_indices(0, 5, 4)
