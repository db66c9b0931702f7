"""Datasets of noise for the tests of reading, and a storage that counts and fails."""

import dataclasses
import json
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import fs

from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import Manifest, save_manifest
from mana_dist.data.samples import Sample, ShardWriter


def noise_dataset(
    folder: str, samples: int, group_rows: int, *, shard_rows: int = 10**6, side: int = 8, frames: int = 3
) -> Manifest:
    """``samples`` of ``side`` LR pixels square; the same for the same arguments."""
    rng = np.random.default_rng(samples)
    raw = 3 * side**2 * (frames + 16)

    def sample(number: int) -> Sample:
        lr = rng.integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
        return Sample(lr, rng.integers(0, 256, (4 * side, 4 * side, 3), dtype=np.uint8), number, 0.0)

    with ShardWriter(
        folder, stem="noise", unit="noise", group_bytes=group_rows * raw, shard_bytes=shard_rows * raw
    ) as writer:
        for number in range(samples):
            writer.add(sample(number), clip="noise", source="noise")
        shards = writer.close()
    empty = SampleSettings(frames_per_sample=frames).empty_manifest()
    manifest = dataclasses.replace(empty, samples=samples, clips=1, shards=shards)
    save_manifest(folder, manifest)
    return manifest


def plain_array(table: pa.Table, column: str) -> NDArray[np.uint8]:
    """A column of pictures as a stranger reads it."""
    return shaped(table[column].to_pylist(), table.schema.field(column))


def shaped(values: Iterable[bytes], field: pa.Field) -> NDArray[np.uint8]:
    """Pictures from the bytes that any reader of Parquet gives of each row, in the shape that the metadata say."""
    shape, dtype = json.loads(field.metadata[b"shape"]), field.metadata[b"dtype"].decode()
    return np.stack([np.frombuffer(value, dtype).reshape(shape) for value in values])


class Storage:
    """Local files, as a store that counts what is read from it and fails when told to.

    Attributes:
        opened: how many files were opened.
        reads: (path, first byte, bytes) of each read, in order.
        failures: how many of the coming reads fail.
        is_down: whether all reads fail.
    """

    def __init__(self) -> None:
        self.reads: list[tuple[str, int, int]] = []
        self.opened = 0
        self.failures = 0
        self.is_down = False
        self._local = fs.LocalFileSystem()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes read in all."""
        return sum(length for _, _, length in self.reads)

    def open_input_file(self, path: str) -> "_CountedFile":
        self.opened += 1
        return _CountedFile(self, path, self._local.open_input_file(path))

    def count(self, path: str, start: int, length: int) -> None:
        with self._lock:
            self.failures -= 1
            if self.is_down or self.failures >= 0:
                raise OSError("AWS Error NETWORK_CONNECTION: connection refused")
            self.reads.append((path, start, length))


class _CountedFile:
    def __init__(self, storage: Storage, path: str, file: fs.FileSystem) -> None:
        self._storage, self._path, self._file = storage, path, file

    def size(self) -> int:
        size: int = self._file.size()
        return size

    def read_at(self, length: int, start: int) -> bytes:
        self._storage.count(self._path, start, length)
        data: bytes = self._file.read_at(length, start)
        return data


def counted_storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    """From now on shards are read from such a storage."""
    storage = Storage()
    monkeypatch.setattr("mana_dist.data.shard_reader.storage.filesystem", lambda uri: (storage, str(Path(uri))))
    return storage
