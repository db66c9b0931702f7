"""Names that file systems and object stores accept, and the hidden names of files that are being written."""

import hashlib
import os

from mana_dist.storage.uris import is_remote, resolve, split

_MAX_KEY_BYTES = 1024  # S3 and Google
_MAX_NAME_BYTES = 255  # usual file systems; for those that do not report a limit
_MAX_PATH_BYTES = 4095
_TOKEN_BYTES = 32  # room after a prefix: letters that make the name unique, and a suffix


def partial_prefix(name: str) -> str:
    """Return the beginning of the hidden names under which a file ``name`` is written before it is whole.

    A name that is too long for more letters is replaced by its digest.
    """
    if len(os.fsencode(name)) > _MAX_NAME_BYTES - len(f"..partial-{'x' * _TOKEN_BYTES}"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.partial-"


def name_problem(uri: str) -> str:
    """Return why ``uri``, which need not exist, is too long a name to be written; empty if it is not."""
    if is_remote(uri):
        size = len(split(resolve(uri))[2].encode(errors="surrogateescape"))
        too_long = f"its key is too long: {size} bytes, and a bucket takes {_MAX_KEY_BYTES}"
        return too_long if size > _MAX_KEY_BYTES else ""
    path = resolve(uri)
    size = len(os.fsencode(path))
    if size > _MAX_PATH_BYTES:
        return f"its path is too long: {size} bytes, and the system takes {_MAX_PATH_BYTES}"
    existing = os.path.dirname(path)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    try:
        limit = os.pathconf(existing, "PC_NAME_MAX")
    except (OSError, ValueError):  # a network file system may not report it
        limit = _MAX_NAME_BYTES
    size = max(len(os.fsencode(name)) for name in path.split("/"))
    return f"its name is too long: {size} bytes, and the file system takes {limit}" if size > limit else ""
