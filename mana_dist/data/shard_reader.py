"""Reading row groups of sample shards from storage that is slow, far away or gone for a while."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mana_dist import storage
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.pages import ChunkLocation, PageDamagedError, locate, read_pixels
from mana_dist.data.samples import SampleGroup, read_row_group
from mana_dist.errors import UserError, one_line

_PATIENCE = 60.0  # seconds
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0
_FOOTER_BYTES = 64 * 2**10  # what pyarrow reads at first, too
_OPEN_FILES = 128
_TRAILER = 8  # a Parquet file's last bytes: the footer's length, then b"PAR1"

_Result = TypeVar("_Result")


class _GroupLocation(NamedTuple):
    """Where the pixels of a row group lie; Nones where pyarrow has to unpack them."""

    lr: ChunkLocation | None
    hr: ChunkLocation | None


@dataclass(frozen=True)
class _Layout:
    """A shard's footer, as far as reading needs it."""

    groups: tuple[_GroupLocation, ...]


class ShardReader:
    """Reads row groups, several threads at a time: one request for each, and two for each shard that comes anew.

    A read that fails is tried again, at growing intervals, for a minute. Page checksums are verified.

    Args:
        uri: the dataset's folder.
        manifest: its manifest.
        patience: seconds for which a failing read is tried again.
    """

    def __init__(self, uri: str, manifest: Manifest, patience: float = _PATIENCE) -> None:
        self._uri, self._manifest, self._patience = uri, manifest, patience
        self._filesystem, self._root = storage.filesystem(uri)
        self._layouts: dict[str, _Layout] = {}
        self._files: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def close(self) -> None:
        """Let no read wait any longer."""
        self._closed.set()

    def read(self, shard: Shard, index: int) -> SampleGroup:
        """Row group ``index`` of ``shard``.

        Raises:
            UserError: the shard is missing, not the one that the manifest tells of or damaged, or could not be read
                for all the patience.
        """
        try:
            # Two threads may read one footer; they find the same.
            layout = self._layouts.get(shard.path) or self._read_layout(shard)
            self._layouts[shard.path] = layout
            location = layout.groups[index]
            if location.lr is None or location.hr is None:
                path = storage.join(self._root, shard.path)
                return self._patiently(shard, lambda: read_row_group(self._filesystem, path, index, verify=True))
            return self._read_pages(shard, index, location.lr, location.hr)
        except (PageDamagedError, pa.ArrowException, ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"{self._name(shard)}: damaged ({_line(error)}); see what else is with `python -m pipelines.ingest "
                f"--verify {self._uri}`, and make it again by running its ingest again"
            ) from error

    def _read_pages(self, shard: Shard, index: int, lr: ChunkLocation, hr: ChunkLocation) -> SampleGroup:
        rows = min(shard.group_rows, shard.rows - index * shard.group_rows)
        lr_shape = (rows, self._manifest.frames, shard.height, shard.width, 3)
        hr_shape = (rows, shard.height * self._manifest.scale, shard.width * self._manifest.scale, 3)
        start, stop = min(lr.start, hr.start), max(lr.start + lr.length, hr.start + hr.length)
        data = memoryview(self._read_range(shard, start, stop - start))

        def pixels(chunk: ChunkLocation, shape: tuple[int, ...]) -> NDArray[np.uint8]:
            part = data[chunk.start - start : chunk.start - start + chunk.length]
            return read_pixels(part, chunk.level_blocks, math.prod(shape)).reshape(shape)

        return SampleGroup(pixels(lr, lr_shape), pixels(hr, hr_shape))

    def _read_layout(self, shard: Shard) -> _Layout:
        length = min(_FOOTER_BYTES, shard.bytes)
        tail = self._read_range(shard, shard.bytes - length, length)
        footer = int.from_bytes(tail[-_TRAILER:-4], "little") + _TRAILER
        if length < footer <= shard.bytes:
            tail = self._read_range(shard, shard.bytes - footer, footer)
        try:
            metadata = pq.read_metadata(pa.BufferReader(tail))
        except OSError as error:  # these bytes are in memory: the storage is not to blame
            raise PageDamagedError(str(error)) from error
        names = [metadata.schema.column(column).path for column in range(metadata.num_columns)]
        columns = [names.index(f"{name}.list.element") for name in ("lr", "hr")]
        if metadata.num_row_groups != shard.groups:
            raise PageDamagedError(f"{metadata.num_row_groups} row groups, the manifest says {shard.groups}")
        return _Layout(
            tuple(
                _GroupLocation(*(locate(metadata, group, column) for column in columns))
                for group in range(metadata.num_row_groups)
            )
        )

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
        """The shard's file, kept open: in an object store that takes a request. Any number of threads may read it."""
        with self._lock:
            if file := self._files.get(shard.path):
                return file
        file = self._filesystem.open_input_file(storage.join(self._root, shard.path))
        if file.size() != shard.bytes:
            raise PageDamagedError(f"{file.size()} bytes long, the manifest says {shard.bytes}")
        with self._lock:
            self._files[shard.path] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)  # closed when the last thread has read
        return file

    def _patiently(self, shard: Shard, attempt: Callable[[], _Result]) -> _Result:
        """The result of ``attempt``, tried again while the storage does not answer."""
        name = self._name(shard)
        started, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                return attempt()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UserError(
                    f"{name}: the shard is missing though the manifest tells of it; run its ingest again"
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
