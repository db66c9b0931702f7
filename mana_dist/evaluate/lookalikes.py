"""LR frames among the clips that are to be the ground truth, in folders of any name."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from mana_dist import storage
from mana_dist.data.degradation import Degradation, crop_to_multiple, degrade
from mana_dist.errors import UserError
from mana_dist.inference import Frame
from mana_dist.video import reading
from mana_dist.video.picture_files import shown_size

_SCALE = 4
_ALIKE = 0.9
"""Correlation of two pictures from which on they are taken for the same; other kernels than ours stay far above."""

Size = tuple[int, int]


class Seen(NamedTuple):
    """A clip of a dataset.

    Attributes:
        path: in the dataset.
        uri: a video, or a folder of frames.
        frames: as far as is known without decoding.
        first: URI of a folder's first frame.
        size: of a video's frames, width and height.
    """

    path: str
    uri: str
    frames: int | None
    first: str | None
    size: Size | None


def check_no_lr(uri: str, clips: Sequence[Seen]) -> None:
    """Two clips of a dataset are HR and LR frames of the same: as many, a quarter as large, the same first picture.

    Only clips with paths that differ in one name are looked at, like HR/walk and small/walk, or walk/a and walk/b.

    Args:
        uri: of the dataset, for the error.
        clips: all of it.

    Raises:
        UserError: there are such two.
    """
    groups: dict[tuple[object, ...], list[Seen]] = {}
    for clip in clips:
        parts = clip.path.split("/")
        for position in range(len(parts)):
            key = clip.frames, position, *parts[:position], "", *parts[position + 1 :]
            groups.setdefault(key, []).append(clip)
    sizes: dict[str, Size] = {}
    pictures: dict[tuple[str, bool], Frame] = {}
    for group in groups.values():
        by_size: dict[Size, list[Seen]] = {}
        for clip in group if len(group) > 1 else ():
            by_size.setdefault(sizes.setdefault(clip.uri, _size(clip, sizes)), []).append(clip)
        for (width, height), large in by_size.items():
            small = by_size.get((width // _SCALE, height // _SCALE), []) if min(width, height) >= _SCALE else []
            for high, low in product(large, small):
                if _alike(_picture(high, pictures, shrink=True), _picture(low, pictures, shrink=False)):
                    raise UserError(
                        f"--data {uri}: {low.uri} holds the LR frames of {high.uri}, by size and picture; put them "
                        "into folders HR/CLIP and LR/CLIP, or name the folder of the ground truth alone"
                    )


def _size(clip: Seen, sizes: dict[str, Size]) -> Size:
    if clip.uri in sizes:
        return sizes[clip.uri]
    if clip.size is not None or clip.first is None:
        return clip.size or (0, 0)
    try:
        return shown_size(storage.read_bytes(clip.first), clip.first)
    except OSError as error:
        raise UserError(f"{clip.first}: not a picture that can be read ({error})") from error


def _picture(clip: Seen, pictures: dict[tuple[str, bool], Frame], *, shrink: bool) -> Frame:
    """The first frame, of the LR frames' size."""
    key = clip.uri, shrink
    if key not in pictures:
        frame = next(reading.read_frames(clip.uri, stop=1))
        pictures[key] = degrade(crop_to_multiple(frame, _SCALE), Degradation.BI) if shrink else frame
    return pictures[key]


def _alike(one: Frame, other: Frame) -> bool:
    if one.shape != other.shape or one.std() == 0 or other.std() == 0:
        return False
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) > _ALIKE
