"""Files by URI, which is a local path or anything with a scheme.

``storage.write_bytes("s3://bucket/folder/file", data)``: readers see the whole file, or none.

All functions, and the streams that they return, raise OSError if a storage cannot be reached or refuses; it is
FileNotFoundError if there is no such file. A scheme that nothing installed can read is a UserError.
"""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.storage.file_names import name_problem
    from mana_dist.storage.filesystems import filesystem
    from mana_dist.storage.listing import (
        FileStat,
        ListedFile,
        exists,
        files_in,
        is_folder,
        list_files,
        list_folder,
        stat,
    )
    from mana_dist.storage.read_write import check_writable, delete, open_read, open_write, read_bytes, write_bytes
    from mana_dist.storage.uris import has_wildcards, is_missing, is_remote, is_web, join, resolve, split_pattern

__all__ = [
    "FileStat",
    "ListedFile",
    "check_writable",
    "delete",
    "exists",
    "files_in",
    "filesystem",
    "has_wildcards",
    "is_folder",
    "is_missing",
    "is_remote",
    "is_web",
    "join",
    "list_files",
    "list_folder",
    "name_problem",
    "open_read",
    "open_write",
    "read_bytes",
    "resolve",
    "split_pattern",
    "stat",
    "write_bytes",
]

__getattr__ = lazily(
    __name__,
    {
        ".file_names": "name_problem",
        ".filesystems": "filesystem",
        ".listing": "FileStat ListedFile exists files_in is_folder list_files list_folder stat",
        ".read_write": "check_writable delete open_read open_write read_bytes write_bytes",
        ".uris": "has_wildcards is_missing is_remote is_web join resolve split_pattern",
    },
)
