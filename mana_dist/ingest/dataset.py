"""The dataset that an ingest adds to: which of the clips it holds already, and how the new ones join it."""

import contextlib
import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from mana_dist import storage
from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import Manifest, Rejected, find_manifest, save_manifest
from mana_dist.data.samples import PARTIAL_FOLDER
from mana_dist.errors import HIDDEN, UserError
from mana_dist.footage.expand import Clip, expand
from mana_dist.footage.found import upwards
from mana_dist.ingest import sources_table
from mana_dist.ingest.finished_units import Ledger, are_whole, shard_sizes
from mana_dist.ingest.sources_table import SourceRow
from mana_dist.ingest.units import COUNTS, QUALITIES, ClipResult, UnitResult, by_clip

_OURS = re.compile(r".+-[0-9a-f]{12}(-s\d{5})?-\d{5}\.parquet|sources-[0-9a-f]{12}\.parquet")
"""Files of this form in a dataset's folder are ours to delete when no manifest names them."""
_HALF_WRITTEN = re.compile(
    r"\.(manifest\.json|contact_sheet\.png|report\.html|sources-[0-9a-f]{12}\.parquet|\.?mana_dist-write-test-[0-9a-f]{8})"
    r"(\.partial-\w+)?"
)
"""So are these, which a run left that was killed while it wrote them."""
PAGE_NAME = "report.html"
"""The page on a dataset, as it was when the page was made; a run that changes the dataset deletes it."""


@dataclass(frozen=True)
class Dataset:
    """A dataset as it is now.

    Attributes:
        out: URI of its folder.
        manifest: its manifest; without samples where there is none yet.
        rows: its table of sources.
        published: whether readers can see it.
        damaged: units of which shards are missing or have another size than the manifest says.
    """

    out: str
    manifest: Manifest
    rows: tuple[SourceRow, ...]
    published: bool
    damaged: frozenset[str] = frozenset()


def open_dataset(out: str, settings: SampleSettings, *, overwrite: bool) -> Dataset:
    """Return the dataset at ``out``, or an empty one where there is none or it is to be replaced.

    Raises:
        UserError: it was made with other settings or in Python, or cannot be read.
        OSError: the folder cannot be listed.
    """
    empty = settings.empty_manifest()
    existing = None if overwrite else find_manifest(out)
    if existing is None:
        return Dataset(out, empty, (), published=False)
    problem = ""
    if differences := existing.differences(empty):
        problem = f"made with other settings ({'; '.join(differences)})"
    elif existing.sources is None and existing.shards:
        problem = "that were made in Python, nothing can be added to them"
    if problem:
        raise UserError(f"{out}: holds samples {problem}; name another --out, or replace them with --overwrite")
    rows = tuple(sources_table.read(out, existing.sources))
    return Dataset(out, existing, rows, published=True, damaged=_damaged_units(out, existing))


def to_do(dataset: Dataset, clips: Sequence[Clip]) -> list[Clip]:
    """Return those of ``clips`` that the dataset does not hold as they are now, and those that share shards with them.

    A clip that was refused is not looked at again until it changes.

    Raises:
        UserError: a clip that shares shards cannot be read just now: its samples would be lost.
    """
    known = {row.uri: row for row in dataset.rows}
    given = {clip.source: clip for clip in clips}
    todo = {uri: clip for uri, clip in given.items() if not _holds(known.get(uri), clip, dataset.damaged)}
    replaced = {known[uri].unit for uri in todo if uri in known} - {""} | dataset.damaged
    sharing = [row for row in dataset.rows if row.unit in replaced and row.uri not in todo]
    todo |= {row.uri: given[row.uri] for row in sharing if row.uri in given}
    lost = [row for row in sharing if row.uri not in given]
    todo |= {clip.source: clip for clip in _clips_again(lost, dataset.manifest.scale)}
    return sorted(todo.values(), key=lambda clip: clip.uri)


def merge(
    dataset: Dataset,
    clips: Iterable[Clip],
    results: Sequence[UnitResult],
    rejected: Iterable[Rejected],
    looked_at: Collection[str] = (),
) -> tuple[Manifest, list[SourceRow]]:
    """Return manifest and table of sources with the results joined; their order depends on the sources alone.

    A clip of which a unit could not be finished is refused for now, with all that was made of it, and is no row of the
    table: the next run takes it up again. Where the dataset held it, as it was before, that stays.

    Args:
        dataset: what there was.
        clips: the clips that were worked on; what the dataset held of them is replaced.
        results: of all their units.
        rejected: sources that are no clips.
        looked_at: every URI that was looked at: what was refused there before, and is no clip, no longer counts.
    """
    failures = {clip.uri: result for result in results if result.failure for clip in result.clips}
    worked = {clip.source: clip for clip in clips}
    stay = _staying(dataset, failures)
    results = [result for result in results if not stay.intersection(clip.uri for clip in result.clips)]
    worked = {uri: clip for uri, clip in worked.items() if uri not in stay}
    others = [row for row in dataset.rows if row.uri not in worked]
    replaced = {row.unit for row in dataset.rows if row.uri in worked} - {""} | dataset.damaged
    rows = [row for row in others if row.unit not in replaced]
    kept = {row.unit for row in rows}
    lost = "is gone, and shared shards with clips that changed"
    gone = [Rejected(row.uri, lost) for row in others if row.unit in replaced]
    held = {row.uri for row in dataset.rows}
    before = [item for item in dataset.manifest.rejected if item.source in held or not _covers(looked_at, item.source)]
    known = (*before, *rejected, *gone)
    refused = {item.source: item for item in known if item.source not in worked}
    unfinished = {result.group for result in failures.values()}
    for uri, (group, total) in by_clip(results).items():
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


def publish(dataset: Dataset, manifest: Manifest, rows: Sequence[SourceRow]) -> Manifest:
    """Show readers the new dataset, and return the manifest as written.

    Until the manifest is replaced, the last step, readers see the old dataset whole.

    Raises:
        UserError: another ingest has written to the dataset since it was opened, or deleted shards of this one.
        OSError: it cannot be written.
    """
    is_same = not dataset.published or find_manifest(dataset.out) == dataset.manifest
    if not is_same or not are_whole(manifest.shards, shard_sizes(dataset.out)):
        raise UserError(
            f"{dataset.out}: another ingest has worked on it meanwhile; run the same command again, one at a time"
        )
    manifest = dataclasses.replace(manifest, sources=sources_table.write(dataset.out, rows))
    if not dataset.published or manifest != dataset.manifest:
        save_manifest(dataset.out, manifest)
    return manifest


def clear(dataset: Dataset, manifest: Manifest, results: Sequence[UnitResult]) -> None:
    """Delete what killed or replaced runs left beside the published dataset, and the ledger.

    What was made of a long video that could not be finished stays, for the run that goes on with it.
    """
    unfinished = {result.group for result in results if result.failure}
    kept = {shard.path for result in results if result.group in unfinished for shard in result.shards}
    filesystem, folder = storage.filesystem(dataset.out)
    is_other = manifest.shards != dataset.manifest.shards or manifest.rejected != dataset.manifest.rejected
    named = {shard.path for shard in manifest.shards} | {manifest.sources, *kept}
    for info in filesystem.get_file_info(fs.FileSelector(folder)):
        name = info.base_name
        with contextlib.suppress(FileNotFoundError):  # processes of a killed run may still be at work
            is_old = (_OURS.fullmatch(name) and name not in named) or (is_other and name == PAGE_NAME)
            if is_old or _HALF_WRITTEN.fullmatch(name):
                filesystem.delete_file(info.path)
            elif name == PARTIAL_FOLDER:
                filesystem.delete_dir(info.path)
    if not kept:
        Ledger(dataset.out).clear()


def _staying(dataset: Dataset, failures: Collection[str]) -> set[str]:
    """Return those unfinished clips whose samples are whole in shards that no other clip shares."""
    others = {row.unit for row in dataset.rows if row.uri not in failures} | dataset.damaged | {""}
    return {row.uri for row in dataset.rows if row.uri in failures and row.unit not in others}


def _holds(row: SourceRow | None, clip: Clip, damaged: Collection[str]) -> bool:
    return row is not None and row.is_of(clip) and row.unit not in damaged


def _damaged_units(out: str, manifest: Manifest) -> frozenset[str]:
    if not manifest.shards:
        return frozenset()
    sizes = shard_sizes(out)
    return frozenset(shard.unit for shard in manifest.shards if not are_whole([shard], sizes))


def _clips_again(rows: Iterable[SourceRow], scale: int) -> Iterator[Clip]:
    """Yield the clips of ``rows`` as they are now; those that are gone are left out (their samples go too).

    Raises:
        UserError: one is there but cannot be looked at.
    """
    for row in rows:
        if storage.is_web(row.uri) and HIDDEN in row.uri:
            raise UserError(
                f"{row.uri}: shares shards with sources that are made anew, and its password is not recorded; name it "
                "as --source too"
            )
    alike: dict[tuple[int, int | None, int], dict[str, SourceRow]] = {}
    for row in rows:
        alike.setdefault((row.start, row.stop, row.downscale), {})[row.uri] = row
    for (start, stop, downscale), wanted in alike.items():
        lows = {uri: row.lr for uri, row in wanted.items() if row.lr}
        found, rejected, *_ = expand(
            [*wanted, *lows.values()],
            start=start,
            stop=stop,
            downscale=downscale,
            pairs_at=scale if lows else None,
            paired=lows,
        )
        for item in rejected:
            if item.reason.startswith("cannot be read"):
                raise UserError(
                    f"{item.source}: {item.reason}; it shares shards with sources that are made anew: mend that first"
                )
        for clip in found:
            if clip.uri in wanted:
                yield dataclasses.replace(clip, name=wanted[clip.uri].clip)


def _covers(folders: Collection[str], uri: str) -> bool:
    """Return whether ``uri`` or a folder above it is among ``folders``."""
    return any(above in folders for above in upwards(uri))


def _row(clip: Clip, unit: str, result: ClipResult) -> SourceRow:
    values: dict[str, Any] = {name: getattr(clip, name) for name in ("bytes", "modified", "start", "stop", "downscale")}
    values |= {name: getattr(result, name) for name in COUNTS} | {name: result.mean(name) for name in QUALITIES}
    note, hashes = result.note or result.reason, result.hashes or None
    return SourceRow(uri=clip.source, clip=clip.name, unit=unit, note=note, hashes=hashes, lr=clip.lr, **values)
