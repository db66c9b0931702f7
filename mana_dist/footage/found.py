"""Which clips a file or folder that a user names stands for."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mana_dist import storage
from mana_dist.storage import ListedFile
from mana_dist.video.containers import VIDEO_SUFFIXES
from mana_dist.video.frame_folders import FRAME_SUFFIXES
from mana_dist.video.frame_names import natural_key

_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|$))")  # in an object's name '.' and '..' mean nothing


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


def clips_at(uri: str) -> list[str]:
    """The URIs of the clips (video files and folders of frames) that ``uri`` stands for, sorted; none: there are none.

    A file is a clip. A folder stands for what :func:`clips_in` finds in it.

    Raises:
        UserError: no storage has this scheme.
        OSError: the folder cannot be read.
    """
    if storage.is_folder(uri):
        found, _ = clips_in(storage.list_files(uri))
        return [below(uri, clip.path) for clip in found]
    return [uri] if storage.exists(uri) else []


def clips_in(files: Iterable[ListedFile]) -> tuple[list[FoundClip], list[str]]:
    """The clips in a folder's listing, at any depth, sorted by path.

    Every video is a clip, and so is every folder with PNG or JPEG frames directly in it, unless videos lie there too or
    in a folder above: such pictures are taken for previews. Names that begin with a dot are skipped.

    Returns:
        The clips, and the folders of pictures that were taken for previews.
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
    of_videos = {_parent(video.path) for video in videos}
    previews = {folder for folder in pictures if of_videos and any(above in of_videos for above in _upwards(folder))}
    folders = [frame_folder(folder, frames) for folder, frames in pictures.items() if folder not in previews]
    return sorted([*videos, *folders], key=lambda clip: clip.path), sorted(previews)


def frame_folder(path: str, frames: Iterable[ListedFile]) -> FoundClip:
    """The folder ``path`` of ``frames`` as a clip; the paths in ``frames`` are names in it."""
    ordered = sorted(frames, key=lambda frame: natural_key(frame.path))
    changes = [frame.modified for frame in ordered if frame.modified is not None]
    size = sum(frame.bytes or 0 for frame in ordered)
    return FoundClip(path, tuple(frame.path for frame in ordered), size, max(changes, default=None))


def relative(uri: str, folder: str) -> str | None:
    """The path of ``uri`` below ``folder``: empty for that itself, None where it lies elsewhere."""
    inner, outer = storage.resolve(uri), storage.resolve(folder).rstrip("/")
    if inner.rstrip("/") == outer:
        return ""
    return inner[len(outer) + 1 :] if inner.startswith(f"{outer}/") else None


def outside(folder: str, files: Iterable[ListedFile], without: str) -> list[ListedFile]:
    """Of the listing of ``folder`` the files that do not lie below the folder ``without``; empty: all."""
    inside = relative(without, folder) if without else None
    if inside is None:
        return list(files)
    return [file for file in files if inside and not file.path.startswith(f"{inside}/")]


def below(folder: str, path: str) -> str:
    """The URI of ``path``, which is relative to the folder with the URI ``folder``; nothing of it is changed."""
    return f"{folder.rstrip('/')}/{path}" if path else folder


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _upwards(folder: str) -> Iterator[str]:
    """The folder itself, then those above it; the last is ''."""
    while folder:
        yield folder
        folder = _parent(folder)
    yield ""
