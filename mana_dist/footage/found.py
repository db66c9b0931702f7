"""The clips in a folder's listing, and paths below a folder."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mana_dist import storage
from mana_dist.storage import ListedFile
from mana_dist.video.containers import VIDEO_SUFFIXES
from mana_dist.video.frame_folders import FRAME_SUFFIXES
from mana_dist.video.frame_names import natural_key

_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|$))")  # '.' and '..' in an object's name have no meaning


class FoundClip(NamedTuple):
    """A video or a folder of frames in the listing of a folder.

    Attributes:
        path: relative to the listed folder; empty for that itself.
        files: names of a folder's frame files in order, numbers in them by value; None for a video.
        bytes: size of the video, or of all frames together.
        modified: newest change, seconds since the epoch.
    """

    path: str
    files: tuple[str, ...] | None
    bytes: int | None
    modified: float | None


def clips_in(files: Iterable[ListedFile]) -> tuple[list[FoundClip], list[str]]:
    """Return the clips in a folder's listing, at any depth, and the folders of previews, both sorted by path.

    Every video is a clip, and so is every folder with PNG or JPEG frames directly in it. Pictures are previews if
    videos lie in their folder or in one above. Names that begin with a dot are skipped.
    """
    videos: list[FoundClip] = []
    pictures: dict[str, list[ListedFile]] = {}
    for file in files:
        path = file.path
        _, dot, ending = path.rpartition(".")
        suffix = dot + ending.lower()
        if _HIDDEN.search(path):
            continue
        if suffix in VIDEO_SUFFIXES:
            videos.append(FoundClip(path, None, file.bytes, file.modified))
        elif suffix in FRAME_SUFFIXES:
            folder, _, name = path.rpartition("/")
            pictures.setdefault(folder, []).append(ListedFile(name, file.bytes, file.modified))
    of_videos = {video.path.rpartition("/")[0] for video in videos}
    previews = {folder for folder in pictures if not of_videos.isdisjoint(("", *upwards(folder)))}
    folders = [_frame_folder(folder, frames) for folder, frames in pictures.items() if folder not in previews]
    return sorted([*videos, *folders], key=lambda clip: clip.path), sorted(previews)


def _frame_folder(path: str, frames: Iterable[ListedFile]) -> FoundClip:
    ordered = sorted(frames, key=lambda frame: natural_key(frame.path))
    changes = [frame.modified for frame in ordered if frame.modified is not None]
    size = sum(frame.bytes or 0 for frame in ordered)
    return FoundClip(path, tuple(frame.path for frame in ordered), size, max(changes, default=None))


def relative(uri: str, folder: str) -> str | None:
    """Return the path of ``uri`` relative to ``folder``: empty for the folder itself, None if it lies elsewhere."""
    inner, outer = storage.resolve(uri), storage.resolve(folder).rstrip("/")
    if inner.rstrip("/") == outer:
        return ""
    return inner[len(outer) + 1 :] if inner.startswith(f"{outer}/") else None


def outside(folder: str, files: Iterable[ListedFile], without: str) -> list[ListedFile]:
    """Return the files in a folder's listing that do not lie below the folder ``without``; all if that is empty."""
    inside = relative(without, folder) if without else None
    if inside is None:
        return list(files)
    return [file for file in files if inside and not file.path.startswith(f"{inside}/")]


def below(folder: str, path: str) -> str:
    """Return the URI of ``path``, which is relative to the folder's URI, without normalising it."""
    return f"{folder.rstrip('/')}/{path}" if path else folder


def upwards(path: str) -> Iterator[str]:
    """Yield a path or URI and then the folders above it, from the innermost."""
    while path:
        yield path
        path = path.rpartition("/")[0]
