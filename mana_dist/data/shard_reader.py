"""The reader of sample shards' row groups, from storage that is slow, far away or out of reach for a while."""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mana_dist import storage
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.samples import SampleGroup, pixels
from mana_dist.errors import UserError, one_line

_PATIENCE = 60.0  # seconds
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0
_FOOTER_BYTES = 64 * 2**10  # what pyarrow reads at first, too
_OPEN_FILES = 128
_TRAILER = 8  # a Parquet file's last bytes: the footer's length, then b"PAR1"

_Result = TypeVar("_Result")


class ShardReader:
    """Reads row groups, in any number of threads: with one request each, and two more for a new shard.

    A read that fails is tried again, at growing intervals, for ``patience`` seconds. Page checksums are verified.

    """

    def __init__(self, uri: str, manifest: Manifest, patience: float = _PATIENCE) -> None:
        self._uri, self._manifest, self._patience = uri, manifest, patience
        self._filesystem, self._root = storage.filesystem(uri)
        self._footers: dict[str, bytes] = {}
        self._files: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def close(self) -> None:
        """End the waiting of all reads."""
        self._closed.set()

    def read(self, shard: Shard, index: int) -> SampleGroup:
        """Return row group ``index`` of ``shard``.

        Raises:
            UserError: the shard is missing or damaged, does not match the manifest, or could not be read for
                ``patience`` seconds.
        """
        with self._damage_named(shard):
            return self._read(shard, index)

    def column(self, shard: Shard, name: str) -> pa.ChunkedArray:
        """Return what the column ``name``, none of the pixels', holds for all samples of ``shard``.

        Raises:
            UserError: as :meth:`read`.
        """
        with self._damage_named(shard), self._opened(shard) as (image, file):
            for index in range(file.num_row_groups):
                self._fill(image, shard, *_bytes_of(file.metadata, index, (name,)))
            column: pa.ChunkedArray = file.read(columns=[name], use_threads=False)[name]
            if len(column) != shard.rows:
                raise ValueError(f"{len(column)} samples, the manifest says {shard.rows}")
        return column

    def table(self, shard: Shard, index: int, columns: Sequence[str]) -> pa.Table:
        """Return columns of row group ``index`` of ``shard``; what lies between them in the file is read too.

        Raises:
            UserError: as :meth:`read`.
        """
        with self._damage_named(shard), self._opened(shard) as (image, file):
            return self._columns(image, file, shard, index, columns)

    @contextlib.contextmanager
    def _damage_named(self, shard: Shard) -> Iterator[None]:
        try:
            yield
        # Errors of the storage have become UserErrors: these come from the bytes that it gave.
        except (OSError, pa.ArrowException, ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"{self._name(shard)}: damaged ({_line(error)}); see what else is with `mana ingest "
                f"--verify {self._uri}`, and make it again by running its ingest again"
            ) from error

    def _read(self, shard: Shard, index: int) -> SampleGroup:
        with self._opened(shard) as (image, file):
            table = self._columns(image, file, shard, index, ("lr", "hr"))
        group = SampleGroup(pixels(table, "lr"), pixels(table, "hr"))
        rows = min(shard.group_rows, shard.rows - index * shard.group_rows)
        lr, hr = self._manifest.shapes(shard)
        if (group.lr.shape, group.hr.shape) != ((rows, *lr), (rows, *hr)):
            raise ValueError(f"row group {index} holds lr {group.lr.shape}, the manifest says {(rows, *lr)}")
        return group

    def _columns(
        self, image: NDArray[np.uint8], file: pq.ParquetFile, shard: Shard, index: int, columns: Sequence[str]
    ) -> pa.Table:
        self._fill(image, shard, *_bytes_of(file.metadata, index, columns))
        return file.read_row_group(index, columns=list(columns), use_threads=False)

    @contextlib.contextmanager
    def _opened(self, shard: Shard) -> Iterator[tuple[NDArray[np.uint8], pq.ParquetFile]]:
        """Give the file's image, in which only the footer is filled in, and the open file; what is read goes in first.

        Untouched pages of the image take no memory.
        """
        image = np.empty(shard.bytes, np.uint8)
        footer = self._footers.get(shard.path) or self._read_footer(shard)
        self._footers[shard.path] = footer  # two threads may read it, with the same result
        image[-len(footer) :] = np.frombuffer(footer, np.uint8)
        with pq.ParquetFile(pa.BufferReader(image), page_checksum_verification=True) as file:
            if file.num_row_groups != shard.groups:
                raise ValueError(f"{file.num_row_groups} row groups, the manifest says {shard.groups}")
            yield image, file

    def _fill(self, image: NDArray[np.uint8], shard: Shard, start: int, stop: int) -> None:
        """Read bytes of the file into their place in its image."""
        if not 0 <= start < stop <= shard.bytes:
            raise ValueError(f"bytes {start} to {stop} lie beyond the file's end")
        image[start:stop] = np.frombuffer(self._read_range(shard, start, stop - start), np.uint8)

    def _read_footer(self, shard: Shard) -> bytes:
        length = min(_FOOTER_BYTES, shard.bytes)
        tail = self._read_range(shard, shard.bytes - length, length)
        footer = int.from_bytes(tail[-_TRAILER:-4], "little") + _TRAILER
        if length < footer <= shard.bytes:
            tail = self._read_range(shard, shard.bytes - footer, footer)
        return tail[-footer:]

    def _read_range(self, shard: Shard, start: int, length: int) -> bytes:
        def attempt() -> bytes:
            file = self._open(shard)
            try:
                data: bytes = file.read_at(length, start)
            except OSError:
                with self._lock:
                    self._files.pop(shard.path, None)
                raise
            if len(data) != length:
                raise OSError(f"the read ended after {len(data)} of {length} bytes")
            return data

        return self._patiently(shard, attempt)

    def _open(self, shard: Shard) -> pa.NativeFile:
        """Return the shard's file, kept open, since opening takes a request. Any number of threads may read it."""
        with self._lock:
            if file := self._files.get(shard.path):
                return file
        file = self._filesystem.open_input_file(storage.join(self._root, shard.path))
        if file.size() != shard.bytes:
            raise ValueError(f"{file.size()} bytes long, the manifest says {shard.bytes}")
        with self._lock:
            self._files[shard.path] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)  # closed when the last reading thread lets go
        return file

    def _patiently(self, shard: Shard, attempt: Callable[[], _Result]) -> _Result:
        """Return the result of ``attempt``, repeated while the storage does not answer."""
        name = self._name(shard)
        started, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                return attempt()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UserError(
                    f"{name}: the shard is missing though the manifest lists it; run its ingest again (`mana ingest "
                    f"--verify {self._uri}` says what else is missing)"
                ) from error
            except PermissionError as error:
                raise UserError(f"{name}: no permission to read it ({_line(error)})") from error
            except OSError as error:
                waited = time.monotonic() - started
                if waited + delay > self._patience or self._closed.wait(delay):
                    raise UserError(
                        f"{name}: could not be read for {waited:.0f} s ({_line(error)}); see whether the storage "
                        "can be reached, then resume with the same command"
                    ) from error
                if delay == _FIRST_DELAY:
                    print(f"warning: {name}: {_line(error)}; trying again for {self._patience:.0f} s", flush=True)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _name(self, shard: Shard) -> str:
        return storage.join(self._uri, shard.path)


def _line(error: BaseException) -> str:
    return one_line(error)[:300] or type(error).__name__


def _bytes_of(metadata: pq.FileMetaData, index: int, columns: Sequence[str]) -> tuple[int, int]:
    """Return the first byte of columns of row group ``index``, which lie side by side, and the byte after the last."""
    group = metadata.row_group(index)
    chunks = [group.column(metadata.schema.names.index(name)) for name in columns]
    # A dictionary, which strings and numbers have, lies before the data.
    starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
    stops = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
    return min(starts), max(stops)
