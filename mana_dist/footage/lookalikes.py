"""LR frames among clips of ground truth, recognised by their pictures, whatever their folders' names."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from mana_dist import storage
from mana_dist.data.degradation import BI, crop_to_multiple, degrade
from mana_dist.errors import UserError
from mana_dist.model.config import SCALES
from mana_dist.video import reading
from mana_dist.video.colours import Frame
from mana_dist.video.picture_files import shown_size

_ALIKE = 0.9  # least correlation of two pictures of the same; other downscaling kernels than ours stay far above

Size = tuple[int, int]


class Seen(NamedTuple):
    """A clip of a dataset."""

    path: str  # relative to the dataset
    uri: str  # a video, or a folder of frames
    frames: int | None  # number of frames, if known without decoding
    first: str | None  # URI of a folder's first frame; None for a video
    size: Size | None  # width and height of a video's frames


def lr_among(clips: Sequence[Seen], most: int | None = None) -> Iterator[tuple[Seen, Seen]]:
    """Yield pairs of clips, HR and LR, with equally many frames, one a scale smaller, and the same first picture.

    Compares only clips whose paths differ in one name, like HR/walk and small/walk, or walk/a and walk/b.

    Args:
        clips: all clips of a dataset.
        most: number of clips whose sizes may be read; None for all.
    """
    groups: dict[tuple[object, ...], list[Seen]] = {}
    for clip in clips:
        parts = clip.path.split("/")
        for position in range(len(parts)):
            key = clip.frames, position, *parts[:position], "", *parts[position + 1 :]
            groups.setdefault(key, []).append(clip)
    sizes: dict[str, Size] = {}
    pictures: dict[tuple[str, int], Frame | None] = {}
    for group in groups.values():
        by_size: dict[Size, list[Seen]] = {}
        for clip in group if len(group) > 1 else ():
            if clip.uri in sizes or most is None or len(sizes) < most:
                by_size.setdefault(sizes.setdefault(clip.uri, _size(clip, sizes)), []).append(clip)
        for (width, height), large in by_size.items():
            for scale in SCALES if min(width, height) >= max(SCALES) else ():
                for high, low in product(large, by_size.get((width // scale, height // scale), [])):
                    if _alike(_picture(high, pictures, scale), _picture(low, pictures, 1)):
                        yield high, low


def _size(clip: Seen, sizes: dict[str, Size]) -> Size:
    if clip.uri in sizes:
        return sizes[clip.uri]
    if clip.size is not None or clip.first is None:
        return clip.size or (0, 0)
    try:
        return shown_size(storage.read_bytes(clip.first), clip.first)
    except (OSError, UserError):  # reported where the clip is used
        return 0, 0


def _picture(clip: Seen, pictures: dict[tuple[str, int], Frame | None], scale: int) -> Frame | None:
    """Return the first frame, ``scale`` times smaller; None if it cannot be read, which is reported elsewhere."""
    key = clip.uri, scale
    if key not in pictures:
        try:
            frame = next(reading.read_frames(clip.uri, stop=1))
        except UserError:
            pictures[key] = None
        else:
            pictures[key] = degrade(crop_to_multiple(frame, scale), BI, scale) if scale > 1 else frame
    return pictures[key]


def _alike(one: Frame | None, other: Frame | None) -> bool:
    if one is None or other is None or one.shape != other.shape or one.std() == 0 or other.std() == 0:
        return False
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) > _ALIKE
