"""The dataset that an ingest adds to: which of the clips it holds already, and how the new ones join it."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyarrow import fs

from mana_dist import storage
from mana_dist.data.manifest import Manifest, Rejected, find_manifest, save_manifest
from mana_dist.data.samples import PARTIAL_FOLDER
from mana_dist.data.settings import SampleSettings
from mana_dist.errors import UserError
from pipelines.ingest import sources_table
from pipelines.ingest.ledger import Ledger, are_whole, shard_sizes
from pipelines.ingest.sources import Clip, expand
from pipelines.ingest.sources_table import SourceRow
from pipelines.ingest.units import ClipResult, UnitResult

_OURS = re.compile(r".+-[0-9a-f]{12}(-s\d{5})?-\d{5}\.parquet|sources-[0-9a-f]{12}\.parquet")
"""Files of this form in a dataset's folder are ours to delete when no manifest names them."""


@dataclass(frozen=True)
class Dataset:
    """A dataset as it is now.

    Attributes:
        out: URI of its folder.
        manifest: its manifest; without samples where there is none yet.
        rows: its table of sources.
        published: whether readers can see it.
    """

    out: str
    manifest: Manifest
    rows: tuple[SourceRow, ...]
    published: bool


def open_dataset(out: str, settings: SampleSettings, *, overwrite: bool) -> Dataset:
    """The dataset at ``out``, or an empty one where there is none or it is to be replaced.

    Raises:
        UserError: it was made with other settings, or cannot be read.
    """
    empty = settings.empty_manifest()
    existing = None if overwrite else find_manifest(out)
    if existing is None:
        return Dataset(out, empty, (), published=False)
    if differences := existing.differences(empty):
        raise UserError(
            f"{out}: holds samples made with other settings ({'; '.join(differences)}); "
            "name another --out, or replace them with --overwrite"
        )
    return Dataset(out, existing, tuple(sources_table.read(out, existing.sources)), published=True)


def to_do(dataset: Dataset, clips: Sequence[Clip]) -> list[Clip]:
    """Of ``clips``, those that the dataset does not hold as they are now; and the clips that share shards with them.

    A clip that was refused is not looked at again until it changes.
    """
    known = {row.uri: row for row in dataset.rows}
    damaged = _damaged_units(dataset)
    todo = {clip.uri: clip for clip in clips if not _holds(known.get(clip.uri), clip, damaged)}
    given = {clip.uri: clip for clip in clips}
    replaced = {known[uri].unit for uri in todo if uri in known} - {""} | damaged
    for row in dataset.rows:
        if row.unit in replaced and row.uri not in todo:
            todo |= {clip.uri: clip for clip in [given.get(row.uri) or _clip_again(row)] if clip}
    return sorted(todo.values(), key=lambda clip: clip.uri)


def merge(
    dataset: Dataset, clips: Iterable[Clip], results: Sequence[UnitResult], rejected: Iterable[Rejected]
) -> tuple[Manifest, list[SourceRow]]:
    """The dataset's manifest and table of sources with the results joined; their order depends on the sources alone.

    A clip of which a unit could not be finished is refused for now, with all that was made of it, and is no row of the
    table: the next run takes it up again.

    Args:
        dataset: what there was.
        clips: the clips that were worked on; what the dataset held of them is replaced.
        results: of all their units.
        rejected: sources that are no clips.
    """
    worked = {clip.uri: clip for clip in clips}
    others = [row for row in dataset.rows if row.uri not in worked]
    replaced = {row.unit for row in dataset.rows if row.uri in worked} - {""}
    rows = [row for row in others if row.unit not in replaced]
    kept = {row.unit for row in rows}
    gone = [
        Rejected(row.uri, "is gone, and shared shards with clips that changed")
        for row in others
        if row.unit in replaced
    ]
    known = (*dataset.manifest.rejected, *rejected, *gone)
    refused = {item.source: item for item in known if item.source not in worked}
    failures = {clip.uri: result for result in results if result.failure for clip in result.clips}
    unfinished = {result.group for result in failures.values()}
    for uri, (group, total) in _by_clip(results).items():
        if uri in failures:
            refused[uri] = Rejected(uri, failures[uri].failure)
            continue
        if total.reason:
            refused[uri] = Rejected(uri, total.reason)
        rows.append(_row(worked[uri], "" if total.reason else group, total))
    shards = [shard for shard in dataset.manifest.shards if shard.unit in kept]
    shards += [shard for result in results for shard in result.shards if result.group not in unfinished]
    usable = {row.uri for row in rows if row.samples}
    manifest = dataclasses.replace(
        dataset.manifest,
        samples=sum(shard.rows for shard in shards),
        clips=len(usable),
        shards=tuple(sorted(shards, key=lambda shard: shard.path)),
        rejected=tuple(refused[uri] for uri in sorted(refused) if uri not in usable),
    )
    return manifest, rows


def publish(dataset: Dataset, manifest: Manifest, rows: Sequence[SourceRow], *, finished: bool) -> Manifest:
    """Show readers the new dataset, then clear away what it does not need; gives the manifest as written.

    Until the manifest is replaced, its last step before clearing, readers see the old dataset whole. What was made of
    clips that are not ``finished`` stays, for the run that goes on with them.
    """
    manifest = dataclasses.replace(manifest, sources=sources_table.write(dataset.out, rows))
    if not dataset.published or manifest != dataset.manifest:
        save_manifest(dataset.out, manifest)
    if finished:
        _remove_leftovers(dataset.out, manifest)
        Ledger(dataset.out).clear()
    return manifest


def _holds(row: SourceRow | None, clip: Clip, damaged: set[str]) -> bool:
    return row is not None and row.is_of(clip) and row.unit not in damaged


def _damaged_units(dataset: Dataset) -> set[str]:
    """The units of which shards are missing or have another size than the manifest says."""
    if not dataset.manifest.shards:
        return set()
    sizes = shard_sizes(dataset.out)
    return {shard.unit for shard in dataset.manifest.shards if not are_whole([shard], sizes)}


def _clip_again(row: SourceRow) -> Clip | None:
    """The clip of a row, as it is now; None if it is gone (its samples go too)."""
    found, *_ = expand([row.uri], start=row.start, stop=row.stop, downscale=row.downscale)
    return next((dataclasses.replace(clip, name=row.clip) for clip in found if clip.uri == row.uri), None)


def _by_clip(results: Iterable[UnitResult]) -> dict[str, tuple[str, ClipResult]]:
    """The unit and the result of each clip; of a video in segments, all of them added up."""
    found: dict[str, tuple[str, ClipResult]] = {}
    for result in sorted(results, key=lambda result: result.name):
        for clip in result.clips:
            found[clip.uri] = (result.group, _sum(found[clip.uri][1], clip) if clip.uri in found else clip)
    return found


def _sum(a: ClipResult, b: ClipResult) -> ClipResult:
    counts = ("frames", "samples", "cuts", "duplicates", "flat")
    notes = dict.fromkeys(note for note in (a.note, b.note) if note)
    added = ClipResult(a.uri, **{name: getattr(a, name) + getattr(b, name) for name in counts}, note="; ".join(notes))
    return dataclasses.replace(added, reason="" if added.samples else a.reason or b.reason)


def _row(clip: Clip, unit: str, result: ClipResult) -> SourceRow:
    return SourceRow(
        uri=clip.uri,
        clip=clip.name,
        unit=unit,
        bytes=clip.bytes,
        modified=clip.modified,
        start=clip.start,
        stop=clip.stop,
        downscale=clip.downscale,
        frames=result.frames,
        samples=result.samples,
        cuts=result.cuts,
        duplicates=result.duplicates,
        flat=result.flat,
        note=result.note or result.reason,
    )


def _remove_leftovers(out: str, manifest: Manifest) -> None:
    """Delete what killed or replaced runs left in the folder."""
    filesystem, folder = storage.filesystem(out)
    named = {shard.path for shard in manifest.shards} | {manifest.sources}
    for info in filesystem.get_file_info(fs.FileSelector(folder)):
        if _OURS.fullmatch(info.base_name) and info.base_name not in named:
            filesystem.delete_file(info.path)
        elif info.base_name == PARTIAL_FOLDER:
            filesystem.delete_dir(info.path)
