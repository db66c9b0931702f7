"""Compare and swap for small files, on every storage: of many who replace a file at the same time, one succeeds.

A lock of the kernel makes it exact on local and network file systems; conditional writes do on S3. Without either
(``gs://`` through pyarrow, file systems without locks, S3 stores without conditional writes) it is only likely: the
writer reads the file again a second later. Two writers can both believe that they have succeeded if one of them halts
for longer than that between reading and writing; the first of them learns of it when it reads the file again.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mana_dist import storage
from mana_dist.storage import s3
from mana_dist.storage.uris import split

_SETTLED = 1.0  # seconds
_LOCK_TRIES, _LOCK_PAUSE = 40, 0.05  # the lock is held while a few hundred bytes are read or written
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def read(uri: str) -> bytes | None:
    """Return the file's content; None if there is none. Gives up earlier than :func:`mana_dist.storage.read_bytes`."""
    resolved = storage.resolve(uri)
    if resolved.startswith("s3://"):
        found = s3.read_now(*split(resolved)[1:])
        return found and found[0]
    if storage.is_remote(uri):
        return _read_loosely(resolved)
    try:
        with _locked(resolved, os.O_RDONLY, fcntl.LOCK_SH) as file:
            return _content(file)
    except NotImplementedError:
        return _read_loosely(resolved)


def swap(uri: str, old: bytes | None, new: bytes | None) -> bool:
    """Replace the content ``old`` by ``new`` if it is still ``old``; None stands for no file.

    No content may occur twice: each must contain something unique.

    Returns:
        Whether the content is ``new`` now, also if an earlier call whose answer was lost wrote it.

    Raises:
        OSError: it cannot be read or written now; it may have been written nonetheless.
    """
    resolved = storage.resolve(uri)
    try:
        if resolved.startswith("s3://"):
            return s3.swap(*split(resolved)[1:], old, new)
        if not storage.is_remote(uri):
            return _swap_file(resolved, old, new)
    except NotImplementedError:
        pass
    return _swap_loosely(resolved, old, new)


def _swap_file(path: str, old: bytes | None, new: bytes | None) -> bool:
    if old is None and new is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    create = os.O_CREAT if old is None and new is not None else 0
    with _locked(path, os.O_RDWR | create, fcntl.LOCK_EX) as file:
        found = _content(file)
        if found != old or file is None or old == new:
            return found == new
        if new is None:
            os.unlink(path)
        else:  # in place, because the lock belongs to this file: whoever waits for it must read the new content
            os.pwrite(file, new, 0)
            os.ftruncate(file, len(new))
    return True


@contextlib.contextmanager
def _locked(path: str, flags: int, kind: int) -> Iterator[int | None]:
    """Open and lock the file ``path``; gives its descriptor, None if there is no file.

    Raises:
        NotImplementedError: this file system has no locks.
        OSError: among others, another process holds the lock for too long.
    """
    while True:
        try:
            file = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, NotADirectoryError):
            if flags & os.O_CREAT:
                raise
            yield None
            return
        try:
            _lock(file, kind, path)
            try:
                if _is_still(file, path):
                    yield file
                    return
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open too
        finally:
            os.close(file)


def _lock(file: int, kind: int, path: str) -> None:
    for _ in range(_LOCK_TRIES):
        try:
            return fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise NotImplementedError(str(error)) from error
            raise
    raise OSError(errno.EAGAIN, "another process holds the lock on it and does not go on", path)


def _is_still(file: int, path: str) -> bool:
    """Return whether ``path`` is still the open file: the lock's previous holder may have deleted it."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _content(file: int | None) -> bytes | None:
    """Return the content; None for an empty file too, whose maker died before it wrote and owns nothing."""
    if file is None:
        return None
    return os.pread(file, os.fstat(file).st_size, 0) or None


def _swap_loosely(uri: str, old: bytes | None, new: bytes | None) -> bool:
    found = _read_loosely(uri)
    if found != old or old == new:
        return found == new
    if new is None:
        storage.delete(uri)
        return True
    storage.write_bytes(uri, new)
    time.sleep(_SETTLED)
    return _read_loosely(uri) == new


def _read_loosely(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri) or None
    except (FileNotFoundError, NotADirectoryError):
        return None
