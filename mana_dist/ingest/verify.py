"""Checking a finished dataset against its manifest: every file, every page of it, every sample's place."""

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mana_dist import storage
from mana_dist.data.manifest import Manifest, Shard, load_manifest
from mana_dist.data.samples import schema_of
from mana_dist.errors import UserError, one_line, redacted
from mana_dist.ingest import sources_table
from mana_dist.ingest.finished_units import shard_sizes
from mana_dist.ingest.sources_table import SourceRow
from mana_dist.progress import LOG_INTERVAL, duration, some

_SHARD_NAME = re.compile(r".+-\d{5}\.parquet|sources-.+\.parquet")
_PLACE = ["source", "centre", "top", "left"]
_UNREADABLE = (OSError, ValueError, pa.ArrowException)  # what pyarrow raises for damaged files
_LISTED = 5  # of many like things, so many are named
_LEAST_READERS = 8  # an object store answers late: more readers than cores


@dataclass(frozen=True)
class _Checked:
    """A shard, what is wrong with it, and the columns :data:`_PLACE` of its samples; None if a part cannot be read."""

    shard: Shard
    problem: str = ""
    places: pa.Table | None = None


@dataclass(frozen=True)
class _Mends:
    """How to mend each kind of problem; samples made in Python have no ingest to run again."""

    redo: str
    delete: str
    overwrite: str


_INGEST = _Mends(
    redo="run the same ingest again: it makes the sources of this shard anew",
    delete="delete it and run the same ingest again: it makes the sources of this shard anew",
    overwrite="make the dataset again: the same ingest with --overwrite",
)
_PYTHON = _Mends(*("write the dataset again",) * 3)


def verify(uri: str, stream: TextIO | None = None) -> list[str]:
    """Read the dataset in the folder ``uri`` whole and compare it with its manifest and its table of sources.

    Checked: every shard is there with its size, rows, row groups, columns and shapes; every page decodes and matches
    its checksum; no sample is there twice; no other file looks like a shard; the table of sources agrees with the
    shards. Memory: one row group per reader, and 24 bytes per sample.

    Returns:
        The problems, each one line that names the file and the mend; empty for a whole dataset. Progress goes to
        ``stream``, by default stderr.

    Raises:
        UserError: no manifest that can be read, or the folder cannot be listed.
    """
    manifest = load_manifest(uri)
    mends = _INGEST if manifest.sources else _PYTHON
    try:
        sizes = shard_sizes(uri)
    except OSError as error:
        raise UserError(f"{uri}: cannot be listed ({error})") from error
    present = [shard for shard in manifest.shards if sizes.get(shard.path) == shard.bytes]
    problems = [*_manifest_problems(manifest, mends), *_file_problems(manifest, sizes, mends)]
    read = _report(_read(uri, present, manifest, mends), present, stream or sys.stderr)
    checked = sorted(read, key=lambda one: one.shard.path)
    problems += [one.problem for one in checked if one.problem]
    places = [(one.shard, one.places) for one in checked if one.places is not None]
    problems += _repeated(places, mends)
    if manifest.sources is not None:
        problems += _source_problems(uri, manifest, places, sizes, mends)
    return problems


def _manifest_problems(manifest: Manifest, mends: _Mends) -> Iterator[str]:
    rows = sum(shard.rows for shard in manifest.shards)
    if rows != manifest.samples:
        yield f"manifest.json: tells {manifest.samples} samples, its shards together {rows}; {mends.overwrite}"
    for name, times in Counter(shard.path for shard in manifest.shards).items():
        if times > 1:
            yield f"{name}: is {times} times in the manifest; {mends.overwrite}"
    for shard in manifest.shards:
        if manifest.patch and (shard.height, shard.width) != (manifest.patch, manifest.patch):
            size = f"{shard.width}x{shard.height}"
            yield f"{shard.path}: holds LR frames of {size}, not patches of {manifest.patch}; {mends.overwrite}"


def _file_problems(manifest: Manifest, sizes: Mapping[str, int], mends: _Mends) -> Iterator[str]:
    for shard in manifest.shards:
        size = sizes.get(shard.path)
        if size is None:
            yield f"{shard.path}: is missing; {mends.redo}"
        elif size != shard.bytes:
            yield f"{shard.path}: has {size} bytes, not {shard.bytes}; {mends.redo}"
    known = {shard.path for shard in manifest.shards} | {manifest.sources}
    strays = sorted(name for name in sizes if name not in known and _SHARD_NAME.fullmatch(name))
    if strays:
        yield (
            f"{some(strays, _LISTED)}: not in the manifest, left by an ingest that runs or was stopped; "
            "run it again to its end, or delete them"
        )


def _read(uri: str, shards: Sequence[Shard], manifest: Manifest, mends: _Mends) -> Iterator[_Checked]:
    """Check all ``shards``; they come as they are done."""
    pool = ThreadPoolExecutor(max(_LEAST_READERS, os.cpu_count() or 1))
    try:
        pending = [pool.submit(_check_shard, uri, shard, manifest, mends) for shard in shards]
        yield from (future.result() for future in as_completed(pending))
    finally:
        pool.shutdown(cancel_futures=True)


def _check_shard(uri: str, shard: Shard, manifest: Manifest, mends: _Mends) -> _Checked:
    filesystem, path = storage.filesystem(storage.join(uri, shard.path))
    places = None
    try:
        with pq.ParquetFile(path, filesystem=filesystem, pre_buffer=True, page_checksum_verification=True) as file:
            problem = _layout_problem(file, shard, manifest)
            if not problem:
                problem, places = _check_groups(file)
    except _UNREADABLE as error:
        problem = f"cannot be read ({one_line(error)})"
    return _Checked(shard, problem and f"{shard.path}: {problem}; {mends.delete}", places)


def _layout_problem(file: pq.ParquetFile, shard: Shard, manifest: Manifest) -> str:
    """Say how a shard's rows, row groups or columns differ from the manifest; empty where they do not."""
    metadata = file.metadata
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    full, rest = divmod(shard.rows, shard.group_rows)
    if groups != [shard.group_rows] * full + [rest] * (rest > 0):
        expected = f"{shard.rows} rows in groups of {shard.group_rows}"
        return f"holds {metadata.num_rows} rows in {len(groups)} groups, not {expected} as the manifest tells"
    columns = {field.name: _described(field) for field in file.schema_arrow}
    for field in schema_of(*manifest.shapes(shard)):
        if (found := columns.get(field.name, "missing")) != _described(field):
            return f"column {field.name} is {found}, not {_described(field)}"
    return ""


def _described(field: pa.Field) -> str:
    layout = field.metadata or {}
    return " ".join([str(field.type), *(layout[key].decode() for key in (b"dtype", b"shape") if key in layout)])


def _check_groups(file: pq.ParquetFile) -> tuple[str, pa.Table | None]:
    """Read all row groups, and return what is wrong with them, or the places of their samples."""
    places, damaged = [], []
    for index in range(file.metadata.num_row_groups):
        try:
            table = file.read_row_group(index, use_threads=False)
            table.validate(full=True)
        except _UNREADABLE as error:
            damaged.append((index, one_line(error)))
        else:
            source, *numbers = (table[name] for name in _PLACE)
            places.append(pa.table([source.dictionary_encode(), *numbers], names=_PLACE))
    if damaged:
        groups = f"row group {some([str(index) for index, _ in damaged], _LISTED)} of {file.metadata.num_row_groups}"
        return f"{groups} cannot be read ({damaged[0][1]})", None
    return "", pa.concat_tables(places)


def _repeated(places: Iterable[tuple[Shard, pa.Table]], mends: _Mends) -> Iterator[str]:
    tables = [table for _, table in places]
    if not tables:
        return
    counts = pa.concat_tables(tables).unify_dictionaries().group_by(_PLACE).aggregate([([], "count_all")])
    repeated = counts.filter(pc.field("count_all") > 1)
    repeated = repeated.set_column(0, "source", repeated["source"].cast(pa.string()))  # dictionaries are not sorted
    repeated = repeated.sort_by([(name, "ascending") for name in _PLACE])
    for row in repeated.slice(0, _LISTED).to_pylist():
        where = f"centre {row['centre']}, top {row['top']}, left {row['left']}"
        yield f"{row['source']}: the sample at {where} is there {row['count_all']} times; {mends.overwrite}"
    if repeated.num_rows > _LISTED:
        yield f"{repeated.num_rows - _LISTED} more samples are there several times; {mends.overwrite}"


def _source_problems(
    uri: str, manifest: Manifest, places: Sequence[tuple[Shard, pa.Table]], sizes: Mapping[str, int], mends: _Mends
) -> Iterator[str]:
    name = manifest.sources or ""
    if name not in sizes:
        yield f"{name}: the table of sources is missing; {mends.overwrite}"
        return
    try:
        rows = sources_table.read(uri, name)
    except (*_UNREADABLE, UserError) as error:
        yield f"{name}: the table of sources cannot be read ({one_line(error)}); {mends.overwrite}"
        return
    yield from (f"{name}: {problem}; {mends.overwrite}" for problem in _table_problems(rows, manifest))
    unread = {shard.path for shard in manifest.shards} - {shard.path for shard, _ in places}
    spoilt = {shard.unit for shard in manifest.shards if shard.path in unread}
    yield from (f"{problem}; {mends.overwrite}" for problem in _count_problems(rows, places, spoilt))


def _table_problems(rows: Sequence[SourceRow], manifest: Manifest) -> Iterator[str]:
    uris = [row.uri for row in rows]
    if uris != sorted(uris):
        yield "its sources are not sorted"
    samples, clips = sum(row.samples for row in rows), sum(row.samples > 0 for row in rows)
    if samples != manifest.samples:
        yield f"its sources tell {samples} samples, the manifest {manifest.samples}"
    if clips != manifest.clips:
        yield f"{clips} of its sources have samples, the manifest tells {manifest.clips}"


def _count_problems(
    rows: Sequence[SourceRow], places: Iterable[tuple[Shard, pa.Table]], spoilt: Collection[str]
) -> Iterator[str]:
    """Yield the sources with more or fewer samples in the shards than in the table, but for ``spoilt`` units."""
    found: Counter[tuple[str, str]] = Counter()
    for shard, table in places:
        if shard.unit not in spoilt:
            for pair in table["source"].unify_dictionaries().value_counts():
                found[shard.unit, redacted(pair["values"].as_py())] += pair["counts"].as_py()
    listed: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.samples and row.unit not in spoilt:
            listed[row.unit, row.uri] += row.samples
    wrong = sorted(key for key in listed.keys() | found.keys() if listed[key] != found[key])
    for unit, uri in islice(wrong, _LISTED):
        yield f"{uri}: {found[unit, uri]} samples in the shards of {unit}, {listed[unit, uri]} in the table"
    if len(wrong) > _LISTED:
        yield f"{len(wrong) - _LISTED} more sources have other numbers of samples in the shards than in the table"


def _report(checked: Iterable[_Checked], shards: Sequence[Shard], stream: TextIO) -> Iterator[_Checked]:
    """Pass on what is checked, and say every few seconds how far it is."""
    total = sum(shard.bytes for shard in shards)
    begun = said = time.monotonic()
    done = 0
    for number, one in enumerate(checked, 1):
        done += one.shard.bytes
        now = time.monotonic()
        if now - said >= LOG_INTERVAL:
            rate = done / (now - begun)
            left = duration((total - done) / max(rate, 1.0))
            print(f"verify: shard {number}/{len(shards)}, {rate / 1e6:.0f} MB/s, ETA {left}", file=stream, flush=True)
            said = now
        yield one
