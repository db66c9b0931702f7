"""The Vimeo90K septuplets: ``sequences/00001/0001/im1.png``, with lists for training and testing."""

import re
from collections.abc import Iterable, Sequence

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.storage import ListedFile

TRAINING = "sep_trainlist.txt"
TESTING = "sep_testlist.txt"
SEQUENCES = "sequences"
_LINE = re.compile(r"\w+/\w+")


def is_list(uri: str) -> bool:
    """Return whether a file of this name is a list of septuplets."""
    return uri.rpartition("/")[2] in (TRAINING, TESTING)


def roots_in(files: Iterable[ListedFile]) -> list[str]:
    """Return the folders with a training list, relative to the listed folder."""
    return [file.path.rpartition("/")[0] for file in files if file.path.endswith(TRAINING) and is_list(file.path)]


def roots_above(uri: str) -> list[str]:
    """Return the folder in whose ``sequences`` ``uri`` lies and which has a training list; empty if there is none."""
    before, found, _ = f"{uri}/".rpartition(f"/{SEQUENCES}/")
    return [before] if found and storage.exists(f"{before}/{TRAINING}") else []


def read_names(uri: str) -> Sequence[str]:
    """Return the septuplets in the list at ``uri``, like '00001/0001', in its order.

    Raises:
        UserError: a line is not a septuplet.
    """
    names = []
    for number, line in enumerate(storage.read_bytes(uri).decode("utf-8-sig", "replace").splitlines(), 1):
        if line.strip() and not _LINE.fullmatch(line.strip()):
            raise UserError(f"{uri}, line {number}: not a septuplet like 00001/0001; mend or delete the line")
        if line.strip():
            names.append(line.strip())
    return names
