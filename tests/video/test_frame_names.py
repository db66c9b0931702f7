"""Frames in order, and where one is missing, by their names alone."""

import random

import pytest

from mana_dist.errors import UserError
from mana_dist.video.frame_names import breaks_in, check_one_clip, describe_breaks, natural_key


def test_numbers_in_names_count_by_value() -> None:
    names = ["²3.png", "im10.png", "im02.png", "x.png", "im2.png", "im10_10.png", "im1.png", "im10_2.png"]
    ordered = ["im1.png", "im02.png", "im2.png", "im10.png", "im10_2.png", "im10_10.png", "x.png", "²3.png"]
    assert sorted(names, key=natural_key) == ordered


def ordered(*names: str) -> list[str]:
    """In order of the frames; given in any."""
    return sorted(random.Random(0).sample(names, len(names)), key=natural_key)


def numbered(pattern: str, *numbers: int) -> list[str]:
    return [pattern.format(number) for number in numbers]


@pytest.mark.parametrize(
    "names",
    [
        numbered("{:04}.png", 0, 1, 2, 3),
        numbered("{}.png", 9, 10, 11),
        numbered("im{}.png", 0, 2, 4, 6),
        numbered("{}.png", *range(1000, 2000, 40)),
        numbered("{}.png", 0, 33, 67, 100, 133, 167, 200),  # milliseconds at 30 frames a second
        ["0001.png", "0002.jpg", "0003.JPEG"],
        [f"f{number:03}_t{40 * number}.png" for number in range(5)],
        [f"take1_{number}.png" for number in range(5)],
        [f"take{number // 3}_{number}.png" for number in range(6)],  # one number counts on through all takes
        ["a.png", "b.png", "c.png"],
        ["x1.png"],
        [],
    ],
)
def test_frames_that_follow_each_other(names: list[str]) -> None:
    check_one_clip("clip", ordered(*names))
    assert breaks_in(ordered(*names)) == ()
    assert describe_breaks(names, ()) == ""


@pytest.mark.parametrize(
    ("names", "breaks"),
    [
        (numbered("{:04}.png", 1, 2, 3, 5, 6), (3,)),
        (numbered("{}.png", 0, 2, 4, 8, 10), (3,)),
        (numbered("{}.png", 0, 33, 67, 133, 167), (3,)),
        (numbered("IMG_{}.jpg", 2031, 2033, 2040, 2102), (2, 3)),
        ([f"left_{n}.png" for n in range(3)] + [f"right_{n}.png" for n in range(3)], (3,)),
        ([f"take{take}_{n}.png" for take in (1, 2) for n in range(3)], (3,)),
        (["000.png", "001.png", "cover.png"], (2,)),
        (["1.png", "2.png", "2.5.png", "3.png"], (1, 2)),
    ],
)
def test_gaps(names: list[str], breaks: tuple[int, ...]) -> None:
    check_one_clip("clip", ordered(*names))
    assert breaks_in(ordered(*names)) == breaks


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["0001.png", "0001.jpg"], "0001.jpg and 0001.png; keep one file for each frame"),
        (["0.5.jpg", "0.5.png", "0.png"], "0.5.jpg and 0.5.png; keep one file for each frame"),
        (["1.png", "01.png", "2.png"], "01.png and 1.png; keep one file for each frame"),
        (
            [f"{number}_{side}.png" for number in range(3) for side in ("left", "right")],
            "0_left.png and 0_right.png, two files for one frame or frames of two clips; keep those of one clip",
        ),
        (
            ["1.png", "2.png", "2_copy.png", "3.png"],
            "2.png and 2_copy.png, two files for one frame or frames of two clips; keep those of one clip",
        ),
    ],
)
def test_each_frame_has_one_file_and_a_folder_one_clip(names: list[str], told: str) -> None:
    with pytest.raises(UserError) as raised:
        check_one_clip("clip", names)
    assert str(raised.value) == f"clip: holds both {told}"


def test_gaps_in_words() -> None:
    ones = [f"{number}.png" for number in (1, 2, 4, 5, 7, 8, 10, 11, 13, 14)]
    assert describe_breaks(ones, breaks_in(ones)) == (
        "its numbers do not go on from 2.png to 4.png, 5.png to 7.png, 8.png to 10.png and at 1 more places"
    )
