"""The Vimeo90K septuplets: ``sequences/00001/0001/im1.png`` and lists of those to train and to test on."""

import re
from collections.abc import Iterable, Sequence

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.storage import ListedFile

TRAINING = "sep_trainlist.txt"
TESTING = "sep_testlist.txt"
LISTS = (TRAINING, TESTING)
SEQUENCES = "sequences"
_LINE = re.compile(r"\w+/\w+")


def is_list(uri: str) -> bool:
    """Whether a file of this name lists septuplets."""
    return uri.rpartition("/")[2] in LISTS


def roots_in(files: Iterable[ListedFile]) -> list[str]:
    """The folders, relative to the listed one, that hold a training list."""
    return [file.path.rpartition("/")[0] for file in files if file.path.endswith(TRAINING) and is_list(file.path)]


def root_above(uri: str) -> str | None:
    """The folder that has ``sequences`` with ``uri`` in it and a training list beside; None if there is none.

    Raises:
        OSError: the storage cannot be read.
    """
    before, found, _ = f"{uri}/".rpartition(f"/{SEQUENCES}/")
    return before if found and storage.exists(f"{before}/{TRAINING}") else None


def read_names(uri: str) -> Sequence[str]:
    """The septuplets in the list at ``uri``, like '00001/0001', in its order.

    Raises:
        UserError: a line names none.
        OSError: it cannot be read.
    """
    names = []
    for number, line in enumerate(storage.read_bytes(uri).decode("utf-8-sig", "replace").splitlines(), 1):
        if line.strip() and not _LINE.fullmatch(line.strip()):
            raise UserError(f"{uri}, line {number}: not a septuplet like 00001/0001; mend or delete the line")
        if line.strip():
            names.append(line.strip())
    return names
