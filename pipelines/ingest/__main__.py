"""``python -m pipelines.ingest``: see the package."""

import shlex
import sys
import time
from collections.abc import Sequence

from mana_dist import lease, storage
from mana_dist.data.manifest import MANIFEST_NAME, Manifest, Rejected
from mana_dist.errors import UserError, run_command
from mana_dist.lease import Lease
from mana_dist.progress import count
from pipelines.ingest import contact_sheet, dataset, dry_run, job, options
from pipelines.ingest.console import Report
from pipelines.ingest.header import look, lookalikes
from pipelines.ingest.ledger import Ledger
from pipelines.ingest.options import Options, Verify
from pipelines.ingest.sources import Clip, expand
from pipelines.ingest.units import UnitResult


def main(argv: list[str]) -> None:
    """Run the command; ``argv`` without the program's name."""
    asked = options.parse(argv)
    if isinstance(asked, Verify):
        verify(asked.uri)
    else:
        ingest(asked)


def ingest(asked: Options) -> None:
    """Bring the dataset up to the sources: what is new or changed is ingested, what is there stays.

    Raises:
        UserError: nothing is usable, the dataset cannot be read or written, or another ingest is at work on it.
    """
    try:
        _ingest(asked)
    except OSError as error:  # those of sources are in the results
        raise UserError(f"{asked.out}: its storage failed ({error}); run the same command again") from error


def _ingest(asked: Options) -> None:
    begun = time.monotonic()
    before = dataset.open_dataset(asked.out, asked.settings, overwrite=asked.overwrite)
    sheet = storage.join(asked.out, contact_sheet.SHEET_NAME)
    if not (before.published or asked.overwrite) and storage.exists(sheet):
        raise UserError(
            f"{sheet}: is there already, and no dataset that it could show; name another --out, or replace it with "
            "--overwrite"
        )
    found, rejected, notes, looked_at = expand(
        asked.sources, start=asked.start, stop=asked.stop, downscale=asked.downscale, as_truth=True
    )
    for note in notes:
        print(note, flush=True)
    clips = [clip for clip in found if not _is_sheet(clip, asked.out)]
    low = lookalikes(clips)
    clips = [clip for clip in clips if clip.uri not in low]
    rejected = [*rejected, *low.values()]
    todo = dataset.to_do(before, clips)
    there = len({clip.uri for clip in clips} - {clip.uri for clip in todo})
    if asked.dry_run:
        print(dry_run.plan(todo, asked.settings, rejected=rejected, segment_frames=asked.segment_frames))
    _check_usable(todo, rejected, asked, anything_there=there > 0)
    storage.check_writable(asked.out, "--out")
    if asked.dry_run:
        print(f"{count(there, 'clip')} there already; nothing was written")
        return
    with lease.hold(asked.out, f"--out {asked.out}", "name another --out") as held:
        before = dataset.open_dataset(
            asked.out, asked.settings, overwrite=asked.overwrite
        )  # nobody else changes it now
        todo = dataset.to_do(before, clips)
        there = len({clip.uri for clip in clips} - {clip.uri for clip in todo})
        results = _work(todo, there, asked, held) if todo else []
        manifest, rows = dataset.merge(before, todo, results, rejected, looked_at)
        if not manifest.samples:
            raise UserError(_nothing_usable(manifest.rejected))
        changed = manifest.shards != before.manifest.shards
        held.check()
        manifest = dataset.publish(before, manifest, rows)
        if changed or Ledger(asked.out).exists() or not storage.exists(sheet):  # a run may have been killed before it
            contact_sheet.write(asked.out, manifest)
        held.check()
        dataset.clear(before, manifest, results)
    _print_summary(manifest, asked, time.monotonic() - begun)


def verify(uri: str) -> None:
    """Check a finished dataset against its manifest.

    Raises:
        UserError: something is missing, damaged or too much.
    """
    from pipelines.ingest.verify import verify as problems_of

    problems = problems_of(uri)
    for problem in problems[1:]:
        print(problem, file=sys.stderr)
    if problems:
        raise UserError(problems[0])
    print(f"{uri}: whole")


def _work(todo: Sequence[Clip], there: int, asked: Options, held: Lease) -> list[UnitResult]:
    """Ingest the clips ``todo``; what an earlier run that was stopped has done of them is taken over."""
    Ledger(asked.out).begin(overwrite=asked.overwrite)
    planned = job.plan(todo, asked.out, asked.settings, asked.segment_frames)
    done = Ledger(asked.out).find(unit.name for unit in planned)
    report = Report(planned, asked.settings, clips=len(todo), done=done, there=there)
    results = list(done.values())
    left = [unit for unit in planned if unit.name not in done]
    for result in job.run(left, asked.out, asked.settings, held.fence):
        held.heed()
        if result.fatal:
            held.check()
            raise UserError(f"{result.failure}; mend it, and the same command goes on where this one stopped")
        results.append(result)
        report.add(result)
    return results


def _check_usable(todo: Sequence[Clip], rejected: Sequence[Rejected], asked: Options, *, anything_there: bool) -> None:
    """End before Ray starts if nothing can be used: a look at headers, up to the first usable clip.

    Raises:
        UserError: no source can be used.
    """
    refused = list(rejected)
    for clip in todo[:100]:
        reason = look(clip, asked.settings)
        if not reason:
            return
        refused.append(Rejected(clip.uri, reason))
    if not anything_there and len(todo) <= 100:
        raise UserError(_nothing_usable(refused))


def _is_sheet(clip: Clip, out: str) -> bool:
    """Whether ``clip`` is the contact sheet of a dataset, this one or another, that lies among the sources.

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


def _print_summary(manifest: Manifest, asked: Options, seconds: float) -> None:
    for item in manifest.rejected[:20]:
        print(f"rejected: {item.source}: {item.reason}", file=sys.stderr)
    if len(manifest.rejected) > 20:
        print(f"... and {len(manifest.rejected) - 20} more: see {MANIFEST_NAME}", file=sys.stderr)
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    print(
        f"{asked.out}: {manifest.samples} samples of {count(manifest.clips, 'clip')} in "
        f"{count(len(manifest.shards), 'shard')}, {size:.1f} MB; {len(manifest.rejected)} rejected; {seconds:.1f} s"
    )
    print(f"look at some of them: {storage.join(asked.out, contact_sheet.SHEET_NAME)}")
    print(f"train on them: python -m mana_dist.train --config tiny --data.path {shlex.quote(asked.out)}")


if __name__ == "__main__":
    run_command(main)
