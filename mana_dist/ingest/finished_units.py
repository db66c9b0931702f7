"""The ledger of an unfinished run: a small record for every unit that is done, beside the dataset until it is whole."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pyarrow import fs

from mana_dist import storage
from mana_dist.data.manifest import SCHEMA_VERSION, Shard
from mana_dist.errors import UserError
from mana_dist.ingest.units import UnitResult
from mana_dist.video import READER_VERSION
from mana_dist.video.strict import Segment

FOLDER = ".work"
_DONE, _PLAN = ".json", ".plan"
_MARK = f"reader-{READER_VERSION}-schema-{SCHEMA_VERSION}"
_READERS = 16


class Ledger:
    """The records in ``<out>/.work/``; a unit with a record need not be done again.

    A unit's name stands for its sources and settings, so records of other work are simply not asked for.

    Args:
        out: URI of the dataset's folder.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._folder = storage.join(out, FOLDER)

    def begin(self, *, overwrite: bool) -> None:
        """Check that what is recorded was read and written as this version does it, and say so for later runs.

        Raises:
            UserError: a run of another version, which takes other pixels from a video or writes shards of another
                layout, did not end here; with ``overwrite`` it is forgotten instead.
        """
        mark = storage.join(self._folder, _MARK)
        if storage.exists(mark):
            return
        if self._recorded():
            if not overwrite:
                raise UserError(
                    f"{self._out}: an ingest was begun there by a mana_dist that reads videos or writes shards in "
                    "another way; name another --out, or begin anew with --overwrite"
                )
            self.clear()
        storage.write_bytes(mark, b"")

    def save(self, result: UnitResult) -> None:
        """Record that a unit is done; its shards are all there by now."""
        storage.write_bytes(storage.join(self._folder, f"{result.name}{_DONE}"), result.to_json().encode())

    def find(self, names: Iterable[str]) -> dict[str, UnitResult]:
        """Return the records of those of the units ``names`` that are done and whose shards are whole."""
        recorded = self._recorded() & set(names)
        if not recorded:
            return {}
        sizes = shard_sizes(self._out)
        with ThreadPoolExecutor(_READERS) as readers:
            results = list(readers.map(self._read, sorted(recorded)))
        return {result.name: result for result in results if result and are_whole(result.shards, sizes)}

    def save_plan(self, name: str, segments: Sequence[Segment]) -> None:
        """Record how a long video was cut: to find that out again would be to read it again."""
        text = json.dumps([vars(segment) for segment in segments])
        storage.write_bytes(storage.join(self._folder, f"{name}{_PLAN}"), text.encode())

    def find_plans(self, names: Iterable[str]) -> dict[str, list[Segment]]:
        """Return the plans that are recorded under ``names``."""
        recorded = sorted(self._recorded(_PLAN) & set(names))
        with ThreadPoolExecutor(_READERS) as readers:
            plans = list(readers.map(self._read_plan, recorded))
        return {name: plan for name, plan in zip(recorded, plans, strict=True) if plan}

    def clear(self) -> None:
        """Forget all records: the manifest says it all now."""
        if self.exists():
            filesystem, folder = storage.filesystem(self._folder)
            filesystem.delete_dir(folder)

    def exists(self) -> bool:
        """Return whether there is a ledger: a run was not ended."""
        filesystem, folder = storage.filesystem(self._folder)
        return filesystem.get_file_info(folder).type == fs.FileType.Directory

    def _recorded(self, suffix: str = _DONE) -> set[str]:
        filesystem, folder = storage.filesystem(self._folder)
        infos = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        return {info.base_name.removesuffix(suffix) for info in infos if info.base_name.endswith(suffix)}

    def _read(self, name: str) -> UnitResult | None:
        try:
            return UnitResult.from_json(storage.read_bytes(storage.join(self._folder, f"{name}{_DONE}")))
        except ValueError:
            return None  # a record that cannot be read is no record

    def _read_plan(self, name: str) -> list[Segment]:
        try:
            values = json.loads(storage.read_bytes(storage.join(self._folder, f"{name}{_PLAN}")))
            return [Segment(**segment) for segment in values]
        except (ValueError, TypeError):
            return []


def shard_sizes(out: str) -> dict[str, int]:
    """Return the bytes of the files directly in the folder ``out``, by name; one listing."""
    filesystem, folder = storage.filesystem(out)
    infos = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return {info.base_name: info.size for info in infos if info.type == fs.FileType.File}


def are_whole(shards: Iterable[Shard], sizes: dict[str, int]) -> bool:
    """Return whether all ``shards`` are there, with their bytes."""
    return all(sizes.get(shard.path) == shard.bytes for shard in shards)
