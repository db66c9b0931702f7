"""An ingest from its sources to the finished dataset."""

import os
import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from mana_dist import storage
from mana_dist.console import log
from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import MANIFEST_NAME, Manifest, Rejected, find_manifest
from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip, expand
from mana_dist.footage.rejected_lines import log_rejected, nothing_usable
from mana_dist.ingest import contact_sheet, curation, dataset, hold_out, sources_table, unit_tasks
from mana_dist.ingest.config import IngestOptions, held_out_folder
from mana_dist.ingest.dry_run import estimate
from mana_dist.ingest.finished_units import Ledger
from mana_dist.ingest.header import reason_to_refuse, reject_lookalikes
from mana_dist.ingest.progress_lines import UnitLines
from mana_dist.ingest.sources_table import SourceRow
from mana_dist.ingest.units import Unit, UnitResult
from mana_dist.progress import count, some
from mana_dist.ray_metrics import RayMetrics
from mana_dist.storage import lease
from mana_dist.storage.lease import Lease
from mana_dist.video.frame_names import parse_frame_range

_NAMED = 20
_NONE = "no source holds a clip; name videos or folders of frames as --source"


def ingest(options: IngestOptions) -> Manifest:
    """Bring a dataset up to its sources: what is new or changed is ingested, what is there stays.

    Returns:
        The dataset's manifest: how many samples, in which shards, and which sources were rejected and why. That of the
        clips that are held out lies beside it, in ``held_out_folder(options.out)``.

    Raises:
        UserError: nothing is usable, the dataset cannot be read or written, or another ingest is at work on it.
    """
    options = options.checked()
    with _storage_errors(options.out):
        *held_out, main = _parts(options)
        for part in (*held_out, main):
            _check_usable(part, options)
            storage.check_writable(part.out, "--out")
    for part in (*held_out, main):
        with _storage_errors(part.out):
            manifest = _ingest(part, options, _beside(part.out, options))
    validation = "".join(f" --data.validation_path {shlex.quote(part.out)}" for part in held_out)
    log.info(f"train on them: mana train --config tiny --data.path {shlex.quote(main.out)}{validation}")
    return manifest


def dry_run(options: IngestOptions) -> None:
    """Log what :func:`ingest` would do, from headers alone, and refuse what it would refuse.

    Raises:
        UserError: as :func:`ingest`.
    """
    options = options.checked()
    with _storage_errors(options.out):
        for part in _parts(options):
            settings, segment_frames = options.settings, options.segment_frames
            log.info(estimate(part.todo, settings, rejected=part.rejected, segment_frames=segment_frames))
            _check_usable(part, options)
            storage.check_writable(part.out, "--out")
            log.info(f"{part.out}: {count(part.there, 'clip')} there already; nothing was written")


@contextmanager
def _storage_errors(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # those of sources are in the results
        raise UserError(f"{out}: its storage failed ({error}); run the same command again") from error


class _Part(NamedTuple):
    """What lies at the sources for one dataset."""

    out: str  # URI of its folder
    clips: Sequence[Clip]  # all that can be used, as far as their names say
    todo: list[Clip]  # those that the dataset does not have
    rejected: Sequence[Rejected]  # what is refused already
    looked_at: Collection[str]  # URIs below which all was looked at

    @property
    def there(self) -> int:
        """Return how many of the clips the dataset has."""
        return len(set(self.clips) - set(self.todo))


def _parts(options: IngestOptions) -> list[_Part]:
    """Look for clips, and return what each dataset gets of them, that of the held-out clips first.

    A mistake in the few clips that are held out is found before the many others are worked on.
    """
    before = _open(options.out, options)
    start, stop = parse_frame_range(options.frames)
    pairs_at = options.settings.scale if options.pairs else None
    found = expand(
        options.sources, start=start, stop=stop, downscale=options.downscale, as_truth=True, pairs_at=pairs_at
    )
    for note in found.notes:
        log.info(note)
    clips = [clip for clip in found.clips if not _is_sheet(clip, options.out)]
    low = {} if options.pairs else reject_lookalikes(clips)
    clips = [clip for clip in clips if clip.uri not in low]
    rejected = [*found.rejected, *low.values()]
    held_out = _hold_out(clips, before, options)
    parts = []
    if held_out is not None:
        apart = {clip.source for clip in held_out.clips}
        clips = [clip for clip in clips if clip.source not in apart]
        parts.append(held_out._replace(looked_at=found.looked_at))
    return [*parts, _Part(options.out, clips, dataset.to_do(before, clips), rejected, found.looked_at)]


def _open(out: str, options: IngestOptions) -> dataset.Dataset:
    before = dataset.open_dataset(out, options.settings, overwrite=options.overwrite)
    sheet = storage.join(out, contact_sheet.SHEET_NAME)
    if not (before.published or options.overwrite) and storage.exists(sheet):
        raise UserError(
            f"{sheet}: is there already, and no dataset that it could show; name another --out, or replace it with "
            "--overwrite"
        )
    return before


def _hold_out(clips: Sequence[Clip], before: dataset.Dataset, options: IngestOptions) -> _Part | None:
    """Return what the dataset of held-out clips gets of these; None: nothing is held out.

    Raises:
        UserError: that is no clip, or all; or a clip would be in both datasets.
    """
    if not clips:
        return None
    folder = held_out_folder(options.out)
    if options.hold_out is None:
        if folder:
            hold_out.check_apart(clips, folder)
        return None
    beside = _open(folder, options)

    def is_usable(clip: Clip) -> bool:
        return not reason_to_refuse(clip, options.settings)

    chosen = hold_out.choose(clips, options.hold_out, before, beside, is_usable)
    names = some([clip.name for clip in chosen], _NAMED)
    log.info(f"held out, by a hash of their names: {count(len(chosen), 'clip')} of {len(clips)} ({names})")
    return _Part(beside.out, chosen, dataset.to_do(beside, chosen), (), ())


def _beside(out: str, options: IngestOptions) -> list[SourceRow]:
    """Return the clips on the other side of a hold-out, as they are now and will stay."""
    is_main = out == options.out
    if not options.settings.drop_near_duplicates or (options.overwrite and not is_main):
        return []
    other = held_out_folder(options.out) if is_main else options.out
    manifest = find_manifest(other) if other else None
    return [] if manifest is None else sources_table.read(other, manifest.sources)


def _ingest(part: _Part, options: IngestOptions, beside: Sequence[SourceRow]) -> Manifest:
    begun = time.monotonic()
    out, clips = part.out, part.clips
    with lease.hold(out, f"--out {out}", "name another --out") as held:
        # Opened once more: now nobody else changes it.
        before = dataset.open_dataset(out, options.settings, overwrite=options.overwrite)
        part = part._replace(todo=dataset.to_do(before, clips))
        results = _work(part, options, held) if part.todo else []
        results = _curated(results, part, [*before.rows, *beside], options, held)
        manifest, rows = dataset.merge(before, part.todo, results, part.rejected, part.looked_at)
        if not manifest.samples:
            raise UserError(nothing_usable(manifest.rejected, _NONE))
        changed = manifest.shards != before.manifest.shards
        held.check()
        manifest = dataset.publish(before, manifest, rows)
        sheet = storage.join(out, contact_sheet.SHEET_NAME)
        if changed or Ledger(out).exists() or not storage.exists(sheet):  # a run may have been killed before it
            contact_sheet.write(out, manifest)
        held.check()
        dataset.clear(before, manifest, results)
    _say_summary(manifest, rows, out, time.monotonic() - begun)
    return manifest


def _work(part: _Part, options: IngestOptions, held: Lease) -> list[UnitResult]:
    """Ingest the clips to do; what an earlier run that was stopped has done of them is taken over."""
    Ledger(part.out).begin(overwrite=options.overwrite)
    planned = unit_tasks.plan(part.todo, part.out, options.settings, options.segment_frames)
    return _run(planned, part, options.settings, held)


def _curated(
    results: list[UnitResult], part: _Part, there: Sequence[SourceRow], options: IngestOptions, held: Lease
) -> list[UnitResult]:
    """Leave out the clips that are not wanted, and make shards anew that they shared with others."""
    refused = curation.refusals(results, [clip.source for clip in part.clips], there, options.settings)
    if not refused:
        return results
    log.info(f"left out: {count(len(refused), 'clip')} of those")
    kept, again = curation.without(results, refused, part.todo, options.settings)
    return [*kept, *(_run(again, part, options.settings, held) if again else [])]


def _run(planned: Sequence[Unit], part: _Part, settings: SampleSettings, held: Lease) -> list[UnitResult]:
    out = part.out
    done = Ledger(out).find(unit.name for unit in planned)
    clips = len({clip.source for unit in planned for clip in unit.clips})
    lines = UnitLines(planned, settings, clips=clips, done=done, there=part.there)
    results = list(done.values())
    left = [unit for unit in planned if unit.name not in done]
    with RayMetrics(dataset=os.path.basename(out.rstrip("/"))) as metrics:
        for result in unit_tasks.run(left, out, settings, held.fence):
            held.heed()
            if result.fatal:
                held.check()
                raise UserError(f"{result.failure}; mend it, and the same command goes on where this one stopped")
            results.append(result)
            lines.add(result)
            _show(result, lines.done_ratio, metrics)
    return results


def _show(result: UnitResult, done_ratio: float, metrics: RayMetrics) -> None:
    """Let a unit's result be seen on the cluster; a part of a long video is no clip of its own."""
    whole = result.clips if result.name == result.group else ()
    metrics.add("mana_ingest_clips_total", len(whole))
    metrics.add("mana_ingest_refused_total", sum(bool(clip.reason) for clip in whole))
    metrics.add("mana_ingest_frames_total", sum(clip.frames for clip in result.clips))
    metrics.add("mana_ingest_samples_total", sum(shard.rows for shard in result.shards))
    metrics.add("mana_ingest_bytes_total", sum(shard.bytes for shard in result.shards))
    metrics.set("mana_ingest_done_ratio", done_ratio)


def _check_usable(part: _Part, options: IngestOptions) -> None:
    """End before Ray starts if nothing can be used: a look at headers, up to the first usable clip.

    Raises:
        UserError: no source can be used.
    """
    refused = list(part.rejected)
    for clip in part.todo[:100]:
        reason = reason_to_refuse(clip, options.settings)
        if not reason:
            return
        refused.append(Rejected(clip.uri, reason))
    if not part.there and len(part.todo) <= 100:
        raise UserError(nothing_usable(refused, _NONE))


def _is_sheet(clip: Clip, out: str) -> bool:
    """Return whether ``clip`` is the contact sheet of a dataset, this one or another, that lies among the sources.

    Raises:
        UserError: the dataset lies right among the frames of ``clip``.
    """
    if clip.files == (contact_sheet.SHEET_NAME,):
        return True
    if clip.uri == out:
        raise UserError(f"--out: {out} is itself a source, a folder of frames; name another folder")
    return False


def _say_summary(manifest: Manifest, rows: Sequence[SourceRow], out: str, seconds: float) -> None:
    log_rejected(manifest.rejected, MANIFEST_NAME)
    for row in [row for row in rows if row.lr and row.samples and row.note][:20]:
        log.warning(f"{row.uri}: {row.note}")
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    log.info(
        f"{out}: {manifest.samples} samples of {count(manifest.clips, 'clip')} in "
        f"{count(len(manifest.shards), 'shard')}, {size:.1f} MB; {len(manifest.rejected)} rejected; {seconds:.1f} s"
    )
    log.info(f"look at some of them: {storage.join(out, contact_sheet.SHEET_NAME)}")
