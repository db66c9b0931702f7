"""Finished work: a record for every result, and the work folders of those that are not."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mana_dist import storage
from mana_dist.errors import redacted
from mana_dist.model.precision import Precision
from mana_dist.storage.file_names import partial_prefix
from mana_dist.upscale.bucket.output_names import Output
from mana_dist.upscale.comparison import comparison_of
from mana_dist.upscale.join import Summary
from mana_dist.upscale.picture_folder import TIMES_FILE

FOLDER = ".work"
_RECORD = ".json"
_READERS = 16
_PARTIAL = re.compile(r"\.partial-")


def as_json(output: Output, summary: Summary) -> dict[str, Any]:
    """Return what is written down of a result."""
    return {"source": redacted(output.source), "output": output.name, **dataclasses.asdict(summary)}


class ResultRecords:
    """The folder of the results as it was when the run began, and the records in ``<out>/.work/``.

    Args:
        out: URI of the folder of all results.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._files: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            self._files = {file.path for file in storage.list_files(out)}

    def folder(self, output: Output) -> str:
        """Return the URI of a result's work folder."""
        return storage.join(self._out, FOLDER, output.key)

    def finished(self, outputs: Sequence[Output]) -> dict[str, Summary]:
        """Return, by key, the results that are there and were made from the same source with the same settings."""
        there = [output for output in outputs if self._is_there(output)]
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(self._read, there))
        return {output.key: summary for output, summary in zip(there, found, strict=True) if summary}

    def precision(self, device: str) -> Precision | None:
        """Return what ``auto`` was on ``device`` when the folder was begun; None: it has not been decided.

        Raises:
            OSError: the storage failed.
        """
        try:
            values = json.loads(storage.read_bytes(self._precision(device)))
            return "bf16" if values["precision"] == "bf16" else "fp32"
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save_precision(self, device: str, precision: Precision) -> None:
        """Record what ``auto`` is on ``device``, so that later runs take the same on whatever processor.

        Raises:
            OSError: the storage failed.
        """
        storage.write_bytes(self._precision(device), json.dumps({"precision": precision}).encode())

    def _precision(self, device: str) -> str:
        return storage.join(self._out, FOLDER, f"precision-{device}{_RECORD}")

    def is_occupied(self, output: Output) -> bool:
        """Return whether something lies where a result, or a comparison of it, goes."""
        names = {output.name, *comparison_of(output.name)}
        return not names.isdisjoint(self._files) or any(path.startswith(f"{output.name}/") for path in self._files)

    def finished_segments(self, output: Output) -> set[str]:
        """Return the names of a result's segments that were finished before the run."""
        begin = f"{FOLDER}/{output.key}/"
        names = (path.removeprefix(begin) for path in self._files if path.startswith(begin))
        return {name.removesuffix(_RECORD) for name in names if name.endswith(_RECORD)}

    def save(self, output: Output, summary: Summary) -> None:
        """Record that a result is in its place, and delete its work folder, and those of other settings.

        Raises:
            OSError: the storage failed.
        """
        storage.write_bytes(self._record(output), json.dumps(as_json(output, summary), indent=1).encode())
        self.forget(output, but=f"{output.key}{_RECORD}")

    def forget(self, output: Output, but: str = "") -> None:
        """Delete all that is kept for a result, whatever its settings; the record ``but`` stays."""
        filesystem, folder = storage.filesystem(storage.join(self._out, FOLDER))
        kept = {path.split("/")[1] for path in self._files if path.startswith(f"{FOLDER}/{output.family}-")}
        for name in sorted((kept | {output.key}) - {but}):
            with contextlib.suppress(OSError):  # in the way of nothing
                if name.endswith(_RECORD):
                    filesystem.delete_file(f"{folder}/{name}")
                else:
                    filesystem.delete_dir(f"{folder}/{name}")

    def clear_partial(self, outputs: Iterable[Output]) -> None:
        """Delete half-written results that a killed run left beside them."""
        ours = set()
        for output in outputs:
            folder, slash, name = output.name.rpartition("/")
            ours |= {f"{folder}{slash}{partial_prefix(written)}" for written in (name, *comparison_of(name))}
        for path in sorted(self._files):
            begins = {path[: end.end()] for end in _PARTIAL.finditer(path)}
            if begins & ours:
                with contextlib.suppress(OSError):
                    storage.delete(storage.join(self._out, path))

    def _is_there(self, output: Output) -> bool:
        result = {output.name, f"{output.name}/{TIMES_FILE}"}
        return bool(result & self._files) and f"{FOLDER}/{output.key}{_RECORD}" in self._files

    def _record(self, output: Output) -> str:
        return storage.join(self._out, FOLDER, f"{output.key}{_RECORD}")

    def _read(self, output: Output) -> Summary | None:
        try:
            values = json.loads(storage.read_bytes(self._record(output)))
            summary = Summary(**{field.name: values[field.name] for field in dataclasses.fields(Summary)})
        except (ValueError, KeyError, TypeError):
            return None  # a record that cannot be read is no record
        return dataclasses.replace(summary, left_out=tuple(summary.left_out), extras=tuple(summary.extras))
