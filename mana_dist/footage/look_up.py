"""Look up what lies at many URIs with few requests."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.errors import UserError, one_line
from mana_dist.storage import FileStat, ListedFile

_LIST_FROM = 100  # names in one folder of an object store from which on the folder is listed (1000 objects a request)
_THREADS = 32


@dataclass(frozen=True)
class Place:
    """What lies at a URI."""

    uri: str
    file: FileStat | None = None  # the file there; None if there is none
    files: Sequence[ListedFile] | None = None  # all files below the folder there; None if there is no folder
    unreadable: tuple[tuple[str, str], ...] = ()  # folders below that cannot be read, with the reasons
    error: str = ""  # why it cannot be read; empty if it can, or if nothing lies there

    @property
    def missing(self) -> bool:
        """Return whether nothing lies there, neither a file nor a folder."""
        return self.file is None and self.files is None and not self.error


def look_up(uris: Sequence[str]) -> list[Place]:
    """Return the places of ``uris``, which must be resolved (:func:`mana_dist.storage.resolve`)."""
    names: dict[str, set[str]] = defaultdict(set)
    for uri in uris:
        names[uri.rpartition("/")[0]].add(uri.rpartition("/")[2])
    listed = [folder for folder, wanted in names.items() if len(wanted) >= _LIST_FROM and _is_listed(folder)]
    places: dict[str, Place] = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for found in threads.map(_list, listed, [names[folder] for folder in listed]):
            places |= found
        single = [uri for uri in dict.fromkeys(uris) if uri not in places]
        one_by_one: Callable[..., Iterable[Place]] = threads.map if any(map(storage.is_remote, single)) else map
        places |= {place.uri: place for place in one_by_one(look_at, single)}
    return [places[uri] for uri in uris]


def look_at(uri: str) -> Place:
    """Return the place of ``uri``, by one or two requests and, for a folder, its listing."""
    unreadable: list[tuple[str, str]] = []
    try:
        found = storage.stat(uri)
        if not found.folder:
            return Place(uri, found)
        files = storage.list_files(uri, lambda error: unreadable.append((str(error.filename), one_line(error))))
        return Place(uri, files=files, unreadable=tuple(unreadable))
    except (FileNotFoundError, NotADirectoryError):
        return Place(uri)
    except (OSError, UnicodeError, UserError) as error:
        return Place(uri, error=one_line(error))


def _is_listed(folder: str) -> bool:
    """Return whether to list ``folder``, which must be in an object store; only there do single requests cost more."""
    return storage.is_remote(folder) and not storage.is_web(folder) and folder.count("/") >= 2


def _list(folder: str, names: Iterable[str]) -> dict[str, Place]:
    """Return the places of ``names`` in ``folder`` by URI, from one listing."""
    listing = look_at(folder)
    files: dict[str, ListedFile] = {}
    folders: dict[str, list[ListedFile]] = defaultdict(list)
    for file in listing.files or ():
        name, slash, rest = file.path.partition("/")
        if slash:
            folders[name].append(ListedFile(rest, file.bytes, file.modified))
        else:
            files[name] = file
    places = {}
    for name in names:
        uri = f"{folder}/{name}"
        if name in files:
            stat = FileStat(uri, folder=False, bytes=files[name].bytes, modified=files[name].modified)
            places[uri] = Place(uri, file=stat)
        else:
            places[uri] = Place(uri, files=folders.get(name), error=listing.error)
    return places
