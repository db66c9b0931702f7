"""Names that file systems and object stores take, and those of files that are being written."""

import hashlib
import os

_MOST_KEY_BYTES = 1024  # of S3 and Google
_MOST_NAME_BYTES = 255  # of the usual file systems, where one does not say
_MOST_PATH_BYTES = 4095
_TOKEN_BYTES = 32  # room for what follows a prefix: letters that make it unique, and a suffix


def partial_prefix(name: str) -> str:
    """Return what the hidden names begin with under which a file ``name`` is written before it is whole.

    Of a name so long that more letters would not fit, a digest stands in for it.
    """
    if len(os.fsencode(name)) > _MOST_NAME_BYTES - len(f"..partial-{'x' * _TOKEN_BYTES}"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.partial-"


def key_problem(key: str) -> str:
    """Return why no object can have this key; empty if one can."""
    size = len(key.encode(errors="surrogateescape"))
    if size > _MOST_KEY_BYTES:
        return f"its key is too long: {size} bytes, and a bucket takes {_MOST_KEY_BYTES}"
    return ""


def path_problem(path: str) -> str:
    """Return why no file can lie at this absolute path, which need not be there; empty if one can."""
    size = len(os.fsencode(path))
    if size > _MOST_PATH_BYTES:
        return f"its path is too long: {size} bytes, and the system takes {_MOST_PATH_BYTES}"
    there = os.path.dirname(path)
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    try:
        most = os.pathconf(there, "PC_NAME_MAX")
    except (OSError, ValueError):  # a network file system may not say
        most = _MOST_NAME_BYTES
    for name in path.split("/"):
        size = len(os.fsencode(name))
        if size > most:
            return f"its name is too long: {size} bytes, and the file system takes {most}"
    return ""
