"""Which clips a file or folder that a user names stands for."""

from collections.abc import Iterable

from mana_dist import storage
from mana_dist.data.video import FRAME_SUFFIXES, VIDEO_SUFFIXES

_Path = tuple[str, ...]


def clips_at(uri: str) -> list[str]:
    """The URIs of the clips (video files and folders of frames) that ``uri`` stands for, sorted; none: there are none.

    A file is a clip. A folder that holds videos stands for these; else one that holds PNG or JPEG frames is a clip;
    else it stands for what its folders stand for, at any depth. Names that begin with a dot are skipped.

    Raises:
        UserError: no storage has this scheme.
        OSError: the folder cannot be read.
    """
    if storage.is_folder(uri):
        return [storage.join(uri, *path) for path in _clips_of(storage.list_files(uri))]
    return [uri] if storage.exists(uri) else []


def _clips_of(files: Iterable[str]) -> list[_Path]:
    """Of a whole tree's files at once: listing it folder by folder would cost an object store a request for each."""
    folders: dict[_Path, list[str]] = {}
    for file in files:
        *parents, name = parts = file.split("/")
        if name.lower().endswith((*VIDEO_SUFFIXES, *FRAME_SUFFIXES)) and not any(map(_is_hidden, parts)):
            folders.setdefault(tuple(parents), []).append(name)
    clips: list[_Path] = []
    for folder in sorted(folders):
        if any(folder[:depth] in folders for depth in range(len(folder))):
            continue  # a folder above has clips of its own
        videos = [name for name in folders[folder] if name.lower().endswith(VIDEO_SUFFIXES)]
        clips += [(*folder, name) for name in sorted(videos)] or [folder]
    return clips


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
