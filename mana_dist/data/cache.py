"""A cache of decoded row groups on a local disk: memory-mapped, bounded, shared by all processes of a node.

A file holds one row group as ``.npy`` does (a structured array with the fields ``lr`` and ``hr``) and the CRC-32 of the
array's bytes.

Why no library: diskcache gives copies, not maps, and is no longer kept; zict serves one process; fsspec's caches hold
the remote bytes, which would have to be decoded each time, and have no bound.
"""

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import IO, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.mixture import Dataset
from mana_dist.data.samples import SampleGroup
from mana_dist.errors import UserError

_SUFFIX, _PARTIAL_SUFFIX = ".group", ".group-partial"
_TOTAL_NAME = ".total-bytes"
_CHECKSUM_BYTES = 4
_OVERHEAD_BYTES = 1024  # at most, beside the pixels
_LEFT_BEHIND = 3600.0  # seconds after which an unfinished file is a dead process's
_KEEP = 0.95  # share of the limit kept when room is made, so that the folder is not listed for every file
_FULL_FOR = 60.0  # seconds before a full cache is tried again
_PENDING = 4  # row groups that may wait to be written


class _Entry(NamedTuple):
    used: float
    bytes: int
    path: str


class DiskCache:
    """Row groups as memory-mapped files in ``folder``, those of all datasets together within ``limit`` bytes.

    To make room, row groups of other datasets are dropped, the least recently used first; those of ``datasets`` stay.
    An epoch reads every row group once, in a new order, so dropping its own least recently used ones would drop those
    needed next: of a dataset twice the limit, 15 % would be found instead of 50 %.

    Raises:
        UserError: the folder, which is made if it is missing, cannot be written.
    """

    def __init__(self, folder: str, limit: int, datasets: Sequence[Dataset]) -> None:
        self._folder, self._limit = folder, limit
        self._keys = {
            (dataset.uri, shard.path): _fingerprint(dataset.uri, dataset.manifest, shard)
            for dataset in datasets
            for shard in dataset.manifest.shards
        }
        self._own = frozenset(self._keys.values())
        # Writing must not delay the training: it has its own thread, and is skipped where the disk is too slow.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk-cache")
        self._pending: list[Future[None]] = []
        self._rests_until = 0.0
        self._verified: set[str] = set()  # once for each process is enough
        self._lock = FileLock(os.path.join(folder, ".lock"))
        try:
            os.makedirs(folder, exist_ok=True)
            with self._lock, tempfile.NamedTemporaryFile(dir=folder, suffix=_PARTIAL_SUFFIX):
                pass
        except OSError as error:
            raise UserError(
                f"data.disk_cache: cannot write to {folder} ({error}); name another local folder"
            ) from error

    def load(self, dataset: Dataset, shard: Shard, index: int) -> SampleGroup | None:
        """Return row group ``index`` of ``shard``, mapped; None if it is not here, or not whole."""
        path = self._path(dataset, shard, index)
        try:
            array = _map(path, _row_type(dataset.manifest, shard), verify=path not in self._verified)
        except OSError:
            return None
        except Exception:  # a damaged header can raise nearly anything
            _remove(path)
            return None
        self._verified.add(path)
        with contextlib.suppress(OSError):  # another process may have dropped it just now; the map stays
            os.utime(path)
        return SampleGroup(array["lr"], array["hr"])

    def store(self, dataset: Dataset, shard: Shard, index: int, group: SampleGroup) -> None:
        """Write a row group in the background, or not at all if the disk does not keep up."""
        self._pending = [task for task in self._pending if not task.done()]
        if len(self._pending) < _PENDING and time.monotonic() >= self._rests_until:
            row_type, path = _row_type(dataset.manifest, shard), self._path(dataset, shard, index)
            self._pending.append(self._writer.submit(self._write, path, row_type, group))

    def close(self) -> None:
        """Wait until the pending row groups are written."""
        self._writer.shutdown(wait=True)

    def _path(self, dataset: Dataset, shard: Shard, index: int) -> str:
        return os.path.join(self._folder, f"{self._keys[dataset.uri, shard.path]}-{index:05d}{_SUFFIX}")

    def _write(self, path: str, row_type: np.dtype[np.void], group: SampleGroup) -> None:
        if os.path.exists(path):
            return
        array = np.empty(len(group.lr), dtype=row_type)
        array["lr"], array["hr"] = group.lr, group.hr
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=_PARTIAL_SUFFIX, delete=False) as stream:
                try:
                    if self._reserve(stream.file, array.nbytes + _OVERHEAD_BYTES):
                        _write_array(stream.file, array)
                        with self._lock:  # else a listing could hold both names or neither
                            os.replace(stream.name, path)
                finally:
                    _remove(stream.name)
        except OSError as error:
            self._rests_until = time.monotonic() + _FULL_FOR
            print(f"warning: data.disk_cache {self._folder}: {error}; going on without storing", flush=True)

    def _reserve(self, stream: IO[bytes], bytes_: int) -> bool:
        """Make ``stream``'s file as large as it will be, if there is room, so that every process counts it."""
        with self._lock:
            total = self._total()
            if total is None or total + bytes_ > self._limit:
                total = self._make_room(bytes_)
            if total + bytes_ > self._limit:
                self._rests_until = time.monotonic() + _FULL_FOR
                return False
            stream.truncate(bytes_)
            with open(os.path.join(self._folder, _TOTAL_NAME), "w", encoding="ascii") as file:
                file.write(str(total + bytes_))
            return True

    def _total(self) -> int | None:
        """Return the recorded bytes in the folder: an upper bound, since files also vanish uncounted."""
        try:
            with open(os.path.join(self._folder, _TOTAL_NAME), encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return None

    def _make_room(self, wanted: int) -> int:
        """Drop row groups until ``wanted`` more bytes fit, and return the bytes that are left."""
        entries = self._entries()
        total = sum(entry.bytes for entry in entries)
        whole = [entry for entry in entries if entry.path.endswith(_SUFFIX)]
        others = [entry for entry in whole if not os.path.basename(entry.path).startswith(tuple(self._own))]
        # All, if the limit fell.
        for candidates, goal in ((others, int(_KEEP * self._limit) - wanted), (whole, self._limit)):
            for entry in sorted(candidates):
                if total <= goal:
                    break
                if _remove(entry.path):
                    total -= entry.bytes
        return total

    def _entries(self) -> list[_Entry]:
        """Return all row groups in the folder, finished or not; removes what dead processes left behind."""
        entries = []
        for file in os.scandir(self._folder):
            if not file.name.endswith((_SUFFIX, _PARTIAL_SUFFIX)):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                if file.name.endswith(_PARTIAL_SUFFIX) and time.time() - status.st_mtime > _LEFT_BEHIND:
                    _remove(file.path)
                else:
                    entries.append(_Entry(status.st_mtime, status.st_size, file.path))
        return entries


def _row_type(manifest: Manifest, shard: Shard) -> np.dtype[np.void]:
    lr, hr = manifest.shapes(shard)
    return np.dtype([("lr", np.uint8, lr), ("hr", np.uint8, hr)])


def _fingerprint(uri: str, manifest: Manifest, shard: Shard) -> str:
    """Return a digest of a shard and how it was made, which stays when other shards come to the dataset."""
    made = [uri, manifest.degradation, manifest.degradation_version, manifest.scale, manifest.frames, manifest.stride]
    made += [] if manifest.recipe is None else [manifest.recipe]
    return hashlib.sha256(json.dumps([*made, asdict(shard)]).encode()).hexdigest()[:24]


def _write_array(stream: IO[bytes], array: NDArray[np.void]) -> None:
    np.save(stream, array, allow_pickle=False)
    stream.write(_checksum(array))
    stream.truncate()
    stream.flush()
    os.fsync(stream.fileno())  # else a crash of the machine may leave the name without its bytes


def _map(path: str, row_type: np.dtype[np.void], *, verify: bool) -> NDArray[np.void]:
    """Map the array in the file at ``path``, and read its pages into memory in this thread.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not whole.
    """
    array: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != row_type:
        raise ValueError(f"{path} holds something else")
    if not verify:
        array.view(np.uint8)[:: mmap.PAGESIZE].max(initial=0)
        return np.asarray(array)
    with open(path, "rb") as stream:
        stream.seek(-_CHECKSUM_BYTES, os.SEEK_END)
        checksum = stream.read()
    if _checksum(array) != checksum:
        raise ValueError(f"{path} is damaged")
    return np.asarray(array)


def _checksum(array: NDArray[np.void]) -> bytes:
    return zlib.crc32(array.view(np.uint8).data).to_bytes(_CHECKSUM_BYTES, "little")


def _remove(path: str) -> bool:
    """Remove a file, and return whether it is gone (it may have been already)."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
