"""An ingest from its sources to the finished dataset."""

import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from mana_dist import storage
from mana_dist.console import log
from mana_dist.data.manifest import MANIFEST_NAME, Manifest, Rejected
from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip, expand
from mana_dist.ingest import contact_sheet, dataset, unit_tasks
from mana_dist.ingest.config import IngestOptions
from mana_dist.ingest.dry_run import estimate
from mana_dist.ingest.finished_units import Ledger
from mana_dist.ingest.header import reason_to_refuse, reject_lookalikes
from mana_dist.ingest.progress_lines import UnitLines
from mana_dist.ingest.units import UnitResult
from mana_dist.progress import count
from mana_dist.storage import lease
from mana_dist.storage.lease import Lease
from mana_dist.video.frame_names import parse_frame_range


def ingest(options: IngestOptions) -> Manifest:
    """Bring a dataset up to its sources: what is new or changed is ingested, what is there stays.

    Returns:
        The dataset's manifest: how many samples, in which shards, and which sources were rejected and why.

    Raises:
        UserError: nothing is usable, the dataset cannot be read or written, or another ingest is at work on it.
    """
    options = options.checked()
    with _storage_errors(options):
        return _ingest(options)


def dry_run(options: IngestOptions) -> None:
    """Log what :func:`ingest` would do, from headers alone, and refuse what it would refuse.

    Raises:
        UserError: as :func:`ingest`.
    """
    options = options.checked()
    with _storage_errors(options):
        found = _look(options)
        log.info(estimate(found.todo, options.settings, rejected=found.rejected, segment_frames=options.segment_frames))
        _check_usable(found.todo, found.rejected, options, anything_there=found.there > 0)
        storage.check_writable(options.out, "--out")
        log.info(f"{count(found.there, 'clip')} there already; nothing was written")


@contextmanager
def _storage_errors(options: IngestOptions) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # those of sources are in the results
        raise UserError(f"{options.out}: its storage failed ({error}); run the same command again") from error


class _Found(NamedTuple):
    """What lies at the sources."""

    clips: list[Clip]  # all that can be used, as far as their names say
    todo: list[Clip]  # those that the dataset does not have
    there: int  # how many it has
    rejected: list[Rejected]  # what is refused already
    looked_at: Collection[str]  # URIs below which all was looked at


def _look(options: IngestOptions) -> _Found:
    before = dataset.open_dataset(options.out, options.settings, overwrite=options.overwrite)
    sheet = storage.join(options.out, contact_sheet.SHEET_NAME)
    if not (before.published or options.overwrite) and storage.exists(sheet):
        raise UserError(
            f"{sheet}: is there already, and no dataset that it could show; name another --out, or replace it with "
            "--overwrite"
        )
    start, stop = parse_frame_range(options.frames)
    found = expand(options.sources, start=start, stop=stop, downscale=options.downscale, as_truth=True)
    for note in found.notes:
        log.info(note)
    clips = [clip for clip in found.clips if not _is_sheet(clip, options.out)]
    low = reject_lookalikes(clips)
    clips = [clip for clip in clips if clip.uri not in low]
    todo = dataset.to_do(before, clips)
    return _Found(clips, todo, len(set(clips) - set(todo)), [*found.rejected, *low.values()], found.looked_at)


def _ingest(options: IngestOptions) -> Manifest:
    begun = time.monotonic()
    clips, todo, there, rejected, looked_at = _look(options)
    _check_usable(todo, rejected, options, anything_there=there > 0)
    storage.check_writable(options.out, "--out")
    with lease.hold(options.out, f"--out {options.out}", "name another --out") as held:
        # Opened once more: now nobody else changes it.
        before = dataset.open_dataset(options.out, options.settings, overwrite=options.overwrite)
        todo = dataset.to_do(before, clips)
        results = _work(todo, len(set(clips) - set(todo)), options, held) if todo else []
        manifest, rows = dataset.merge(before, todo, results, rejected, looked_at)
        if not manifest.samples:
            raise UserError(_nothing_usable(manifest.rejected))
        changed = manifest.shards != before.manifest.shards
        held.check()
        manifest = dataset.publish(before, manifest, rows)
        sheet = storage.join(options.out, contact_sheet.SHEET_NAME)
        if changed or Ledger(options.out).exists() or not storage.exists(sheet):  # a run may have been killed before it
            contact_sheet.write(options.out, manifest)
        held.check()
        dataset.clear(before, manifest, results)
    _say_summary(manifest, options, time.monotonic() - begun)
    return manifest


def _work(todo: Sequence[Clip], there: int, options: IngestOptions, held: Lease) -> list[UnitResult]:
    """Ingest the clips ``todo``; what an earlier run that was stopped has done of them is taken over."""
    Ledger(options.out).begin(overwrite=options.overwrite)
    planned = unit_tasks.plan(todo, options.out, options.settings, options.segment_frames)
    done = Ledger(options.out).find(unit.name for unit in planned)
    lines = UnitLines(planned, options.settings, clips=len(todo), done=done, there=there)
    results = list(done.values())
    left = [unit for unit in planned if unit.name not in done]
    for result in unit_tasks.run(left, options.out, options.settings, held.fence):
        held.heed()
        if result.fatal:
            held.check()
            raise UserError(f"{result.failure}; mend it, and the same command goes on where this one stopped")
        results.append(result)
        lines.add(result)
    return results


def _check_usable(
    todo: Sequence[Clip], rejected: Sequence[Rejected], options: IngestOptions, *, anything_there: bool
) -> None:
    """End before Ray starts if nothing can be used: a look at headers, up to the first usable clip.

    Raises:
        UserError: no source can be used.
    """
    refused = list(rejected)
    for clip in todo[:100]:
        reason = reason_to_refuse(clip, options.settings)
        if not reason:
            return
        refused.append(Rejected(clip.uri, reason))
    if not anything_there and len(todo) <= 100:
        raise UserError(_nothing_usable(refused))


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


def _nothing_usable(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return "no source holds a clip; name videos or folders of frames as --source"
    first = f"{rejected[0].source}: {rejected[0].reason}"
    return first if len(rejected) == 1 else f"none of the {len(rejected)} sources is usable; the first: {first}"


def _say_summary(manifest: Manifest, options: IngestOptions, seconds: float) -> None:
    for item in manifest.rejected[:20]:
        log.warning(f"rejected: {item.source}: {item.reason}")
    if len(manifest.rejected) > 20:
        log.warning(f"... and {len(manifest.rejected) - 20} more: see {MANIFEST_NAME}")
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    log.info(
        f"{options.out}: {manifest.samples} samples of {count(manifest.clips, 'clip')} in "
        f"{count(len(manifest.shards), 'shard')}, {size:.1f} MB; {len(manifest.rejected)} rejected; {seconds:.1f} s"
    )
    log.info(f"look at some of them: {storage.join(options.out, contact_sheet.SHEET_NAME)}")
    log.info(f"train on them: mana train --config tiny --data.path {shlex.quote(options.out)}")
