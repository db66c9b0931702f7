"""What lies at a URI, and listings of folders."""

import errno
import os
import stat as modes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pyarrow import fs

from mana_dist.storage import filesystems, s3, web
from mana_dist.storage.filesystems import arrow_errors, local_errors
from mana_dist.storage.uris import is_remote, is_web, join, resolve, split

_REFUSED = "AWS Error ACCESS_DENIED"  # pyarrow shows a refusal by this text alone


@dataclass(frozen=True)
class FileStat:
    """What a storage reports about a file or a folder without reading it."""

    uri: str
    folder: bool  # whether it is a folder; then the rest is None
    bytes: int | None = None  # size; None if a web server omits it
    modified: float | None = None  # time of the last change, seconds since the epoch; None if a web server omits it


class ListedFile(NamedTuple):
    """A file in the listing of a folder: its path relative to the folder, its size, and its last change (FileStat)."""

    path: str
    bytes: int | None
    modified: float | None


def stat(uri: str) -> FileStat:
    """Return what lies at ``uri``, a file or a folder, by one request, two for a folder."""
    resolved = resolve(uri)
    if not is_remote(uri):
        with local_errors(resolved):
            local = os.stat(resolved)
        if modes.S_ISDIR(local.st_mode):
            return FileStat(resolved, folder=True)
        return FileStat(resolved, False, local.st_size, local.st_mtime)
    scheme, bucket, key = split(resolved)
    if is_web(uri):
        return FileStat(uri, False, *web.head(uri))
    if scheme == "s3":
        found = s3.head(bucket, key)
        return FileStat(resolved, folder=True) if found is None else FileStat(resolved, False, *found)
    filesystem_, path = filesystems.filesystem(uri)
    with arrow_errors(uri):
        info = filesystem_.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", uri)
    if info.type == fs.FileType.Directory:
        return FileStat(resolved, folder=True)
    return FileStat(resolved, False, info.size, info.mtime_ns and info.mtime_ns / 1e9)


def exists(uri: str) -> bool:
    """Return whether a file or a folder lies at ``uri``."""
    try:
        stat(uri)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_folder(uri: str) -> bool:
    """Return whether ``uri`` is a folder; a web server's URL never is, and costs no request."""
    try:
        return not is_web(uri) and stat(uri).folder
    except (FileNotFoundError, NotADirectoryError):
        return False


def list_folder(uri: str) -> list[str]:
    """Return the URIs of everything directly in the folder ``uri``, sorted; folders without a trailing slash."""
    return sorted(join(resolve(uri), name) for name, _ in _entries(uri))


def files_in(uri: str) -> list[str]:
    """Return the URIs of the files directly in the folder ``uri``, sorted."""
    return sorted(join(resolve(uri), name) for name, folder in _entries(uri) if not folder)


def list_files(uri: str, unreadable: Callable[[OSError], None] | None = None) -> list[ListedFile]:
    """Return all files at any depth below the folder ``uri``, in no order.

    Makes one listing, which is one request per 1000 objects of an object store. Follows local links, but not into a
    folder that contains them, and leaves out broken ones.

    For each local folder that cannot be read ``unreadable`` is called; without it, such a folder is an error.
    """
    if not is_remote(uri):
        return list(_walk(resolve(uri), unreadable))
    filesystem_, path = filesystems.filesystem(uri)
    infos = _listed(filesystem_, fs.FileSelector(path, recursive=True), uri)
    skip = len(path.rstrip("/")) + 1
    return [
        ListedFile(info.path[skip:], info.size, info.mtime_ns and info.mtime_ns / 1e9)
        for info in infos
        if info.type != fs.FileType.Directory
    ]


def _entries(uri: str) -> list[tuple[str, bool]]:
    """Return the names directly in a folder, and for each whether it is a folder."""
    if not is_remote(uri):  # pyarrow's listing fails at a name that is not UTF-8
        folder = resolve(uri)
        with local_errors(folder), os.scandir(folder) as scan:
            return [(entry.name, entry.is_dir()) for entry in scan]
    filesystem_, path = filesystems.filesystem(uri)
    infos = _listed(filesystem_, fs.FileSelector(path), uri)
    return [(info.base_name, info.type == fs.FileType.Directory) for info in infos]


def _listed(filesystem_: fs.FileSystem, selector: fs.FileSelector, uri: str) -> list[fs.FileInfo]:
    """Return a folder's listing; a refused request is repeated once, because S3 refuses some under load."""
    with arrow_errors(uri):
        try:
            return filesystem_.get_file_info(selector)
        except OSError as error:
            if _REFUSED not in str(error):
                raise
        time.sleep(1)
        return filesystem_.get_file_info(selector)


def _walk(root: str, unreadable: Callable[[OSError], None] | None) -> Iterator[ListedFile]:
    """Yield the files below a local folder; pyarrow's listing fails at a name that is not UTF-8 and follows circles."""

    def report(error: OSError) -> None:
        if unreadable is None or error.filename == root:
            raise error
        unreadable(error)

    for folder, folders, names in os.walk(root, onerror=report, followlinks=True):
        folders[:] = [name for name in folders if not _leads_upwards(os.path.join(folder, name))]
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = os.stat(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP):  # a broken link, or deleted in the meantime
                    continue
                raise
            yield ListedFile(path[len(os.path.join(root, "")) :], found.st_size, found.st_mtime)


def _leads_upwards(path: str) -> bool:
    """Return whether ``path`` is a link to a folder that contains it, be it by way of other links."""
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return any(os.path.commonpath([target, os.path.realpath(above)]) == target for above in Path(path).parents)
