"""A queue of small messages that outlives its process: usually in memory, on the run's storage where necessary."""

import contextlib
import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mana_dist import storage

BUDGET = 32 * 2**20

_FILE = re.compile(r"([0-9]{12})\.json")  # others in the folder are not ours


@dataclass
class _Entry:
    number: int
    size: int
    data: bytes | None  # None: only in its file
    stored: bool


class Spool:
    """First in, first out, for any number of writers and one reader.

    Nothing is written until :meth:`store` is called, or until the messages outgrow ``budget``; then a message is a file
    in ``uri`` until the reader drops it. Files that an earlier process left there come first.

    Args:
        uri: folder for the files; made when it is needed.
        budget: bytes of messages kept in memory.

    Attributes:
        lost: number of messages that found no room or whose files vanished.
    """

    def __init__(self, uri: str, budget: int = BUDGET) -> None:
        self.uri = uri
        self._budget = budget
        self._entries: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._files = threading.Lock()  # held while files are written or deleted; taken before _changed
        self.lost = 0
        for number in _numbers(uri):
            self._entries.append(_Entry(number, 0, None, stored=True))
        self._next = self._entries[-1].number + 1 if self._entries else 0

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, data: bytes) -> None:
        """Add a message at the end."""
        with self._changed:
            self._entries.append(_Entry(self._next, len(data), data, stored=False))
            self._next += 1
            self._changed.notify_all()
        if self._held() > self._budget:
            self.store()

    def store(self) -> None:
        """Write the messages that are only in memory to files; those beyond the budget are then in files alone.

        Where files cannot be written, the oldest messages beyond the budget are lost.
        """
        with self._files:
            for entry in list(self._entries):
                if not entry.stored and entry.data is not None:
                    try:
                        storage.write_bytes(self._file(entry), entry.data)
                    except OSError:
                        break
                    entry.stored = True
            self._make_room()

    def _make_room(self) -> None:
        with self._changed:
            excess = self._held() - self._budget
            # The reader reaches the newest last, so these leave memory first.
            for entry in reversed(self._entries):
                if excess > 0 and entry.stored and entry.data is not None:
                    entry.data = None
                    excess -= entry.size
            # The oldest may be at the reader. Stored ones behind it hold no memory any more.
            for entry in [entry for entry in itertools.islice(self._entries, 1, None) if not entry.stored]:
                if excess <= 0:
                    break
                self._entries.remove(entry)
                excess -= entry.size
                self.lost += 1

    def first(self, timeout: float | None = None) -> bytes | None:
        """Return the oldest message without dropping it; None if there is none within ``timeout`` seconds.

        Raises:
            OSError: it lies in a file that cannot be read now.
        """
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._entries, timeout):
                    return None
                entry = self._entries[0]
                data = entry.data
            if data is not None:
                return data
            try:
                return storage.read_bytes(self._file(entry))
            except FileNotFoundError:  # somebody has cleaned up
                self.lost += 1
                self.drop_first()

    def drop_first(self) -> None:
        """Drop the oldest message."""
        with self._files:
            if self._entries[0].stored:
                self._delete(self._entries[0])
            with self._changed:
                self._entries.popleft()
                self._changed.notify_all()

    def wait_empty(self, timeout: float) -> bool:
        """Wait until the reader has dropped everything; False if it has not within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._entries, timeout)

    def discard(self, unwanted: Callable[[bytes], bool]) -> None:
        """Delete the messages in files that are not wanted; before anything is read or added."""
        for entry, data in self._leftovers():
            if unwanted(data):
                self._entries.remove(entry)
                self._delete(entry)

    def stored(self) -> list[bytes]:
        """Return all messages in files, oldest first."""
        return [data for _, data in self._leftovers()]

    def _leftovers(self) -> Iterator[tuple[_Entry, bytes]]:
        for entry in list(self._entries):  # a copy: some are discarded on the way
            if entry.stored:
                with contextlib.suppress(FileNotFoundError):  # somebody has cleaned up; the reader counts it
                    yield entry, storage.read_bytes(self._file(entry))

    def _held(self) -> int:
        return sum(entry.size for entry in list(self._entries) if entry.data is not None)

    def _delete(self, entry: _Entry) -> None:
        with contextlib.suppress(OSError):  # the next attempt finds that one which stays has arrived
            storage.delete(self._file(entry))

    def _file(self, entry: _Entry) -> str:
        return storage.join(self.uri, f"{entry.number:012d}.json")


def _numbers(uri: str) -> list[int]:
    try:
        names = [file.rsplit("/", 1)[1] for file in storage.list_folder(uri)]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_FILE.fullmatch, names) if match)
