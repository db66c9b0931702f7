"""The names of a folder's frames: their order, missing ones, the frames of two clips mixed; ranges of frames."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from mana_dist.errors import UserError

_DIGITS = re.compile(r"([0-9]+)")
_FEW = 3


class _Place(NamedTuple):
    """A frame's place by its name: its sequence, and its number in that; None if the name has no number."""

    sequence: tuple[object, ...]
    number: int | None


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts 'im2' before 'im10', and 'im01' before 'im1'."""
    parts: list[str | int] = list(_DIGITS.split(name))
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def check_one_clip(folder: str, names: Iterable[str]) -> None:
    """Refuse two files for one frame, like 0000.png and 0000.jpg, and two clips whose frames are mixed by their names.

    Args:
        folder: for the error.
        names: names of its frames' files.

    Raises:
        UserError: two of the names differ in their suffix or in leading zeros alone; or sequences take turns and share
            a number, like 0001_left.png and 0001_right.png.
    """
    ordered = sorted(names, key=natural_key)
    seen: dict[str, str] = {}
    for name in ordered:
        other = seen.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            raise UserError(f"{folder}: holds both {other} and {name}; keep one file for each frame")
    places = _places(ordered)
    for (one, place), (other, following) in pairwise(zip(ordered, places, strict=True)):
        if place == following and place.number is not None:
            raise UserError(f"{folder}: holds both {one} and {other}; keep one file for each frame")
    stretches = [sequence for sequence, _ in groupby(place.sequence for place in places)]
    again = {sequence for sequence, count in Counter(stretches).items() if count > 1}
    for (one, place), (other, following) in pairwise(zip(ordered, places, strict=True)):
        if {place.sequence, following.sequence} & again and place.number == following.number is not None:
            raise UserError(
                f"{folder}: holds both {one} and {other}, two files for one frame or frames of two clips; "
                "keep those of one clip"
            )


def breaks_in(names: Sequence[str]) -> tuple[int, ...]:
    """Return the positions at which a frame does not follow the one before, as one between them is missing.

    The numbers in names count frames: in steps of any size, the one that is there most often (0, 2, 4 has no gap;
    neither have milliseconds like 33, 67, 100). A name with other text, or another number before the one that counts
    (take1_0001, take2_0001), begins another sequence. Names without any number are ignored.

    Args:
        names: names of a folder's frames, in order.
    """
    places = _places(names)
    steps: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for before, after in pairwise(places):
        if before.sequence == after.sequence and before.number is not None and after.number is not None:
            steps[before.sequence].append(after.number - before.number)
    usual = {sequence: _usual(found) for sequence, found in steps.items()}
    breaks = []
    for position, (before, after) in enumerate(pairwise(places), 1):
        if before.sequence != after.sequence:
            breaks.append(position)
        elif before.number is not None and after.number is not None:
            step = usual[before.sequence]
            if not step < 2 * (after.number - before.number) < 3 * step:
                breaks.append(position)
    return tuple(breaks)


def describe_breaks(names: Sequence[str], breaks: Sequence[int]) -> str:
    """Return a line that says where frames do not follow each other; empty if they all do."""
    if not breaks:
        return ""
    where = ", ".join(f"{names[position - 1]} to {names[position]}" for position in breaks[:_FEW])
    more = f" and at {len(breaks) - _FEW} more places" if len(breaks) > _FEW else ""
    return f"its numbers do not go on from {where}{more}"


def parse_frame_range(text: str) -> tuple[int, int | None]:
    """Parse a range of frames: ``100:132`` -> (100, 132), ``100:`` -> (100, None), ``:100`` -> (0, 100).

    Raises:
        UserError: not such a range, or an empty one.
    """
    match = re.fullmatch(r"(\d*):(\d*)", text.strip())
    if match is None:
        raise UserError(f"frame range {text!r}: write START:STOP, START: or :STOP, like 0:100 (STOP itself excluded)")
    start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise UserError(f"frame range {text!r} is empty: STOP must be greater than START")
    return start, stop


def _usual(steps: Sequence[int]) -> int:
    """Return the most frequent step, of several the smallest."""
    counts = Counter(steps)
    return min(counts, key=lambda step: (-counts[step], step))


def _places(names: Sequence[str]) -> list[_Place]:
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    split = [_DIGITS.split(os.path.splitext(name)[0]) for name in names]
    for position, parts in enumerate(split):
        alike[tuple(parts[::2])].append(position)
    places = [_Place((), None)] * len(names)
    for texts, positions in alike.items():
        rows = [[int(digits) for digits in split[position][1::2]] for position in positions]
        counting = _counting(rows)
        for position, row in zip(positions, rows, strict=True):
            if row:
                others = () if counting.rising else (*row[: counting.column], *row[counting.column + 1 :])
                places[position] = _Place((texts, *others), row[counting.column])
    return places


class _Counting(NamedTuple):
    """The number in the names that counts the frames, and whether it alone rises throughout."""

    column: int
    rising: bool


def _counting(rows: Sequence[Sequence[int]]) -> _Counting:
    columns = list(zip(*rows, strict=True))
    varying = [number for number, column in enumerate(columns) if len(set(column)) > 1]
    for number in varying:
        if all(before < after for before, after in pairwise(columns[number])):
            return _Counting(number, rising=True)
    return _Counting(varying[-1] if varying else len(columns) - 1, rising=False)
