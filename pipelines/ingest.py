"""``python -m pipelines.ingest``: videos and folders of frames into sharded training samples, on Ray Data."""

import dataclasses
import functools
import logging
import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from pyarrow import fs

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.data.degradation import Degradation
from mana_dist.data.manifest import MANIFEST_NAME, Manifest, Rejected, find_manifest, save_manifest
from mana_dist.data.samples import PARTIAL_FOLDER
from mana_dist.data.video import clip_name, parse_frame_range
from mana_dist.errors import UserError, run_command
from pipelines.ingest_clip import SCALE, Outcome, SampleSettings, ingest_clip, refuse_by_header
from pipelines.sources import expand, size_of

_SHARD_NAME = re.compile(r".+-[0-9a-f]{10}-\d{5}\.parquet")
"""Files of this form in a dataset's folder are ours to delete when no manifest names them."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        sources: URIs of videos, frame folders, or folders of either.
        out: URI of the dataset's folder.
        settings: how samples are made.
        overwrite: whether a dataset made with other settings may be replaced.
    """

    sources: tuple[str, ...]
    out: str
    settings: SampleSettings
    overwrite: bool


def main(argv: list[str]) -> None:
    """Run the command; ``argv`` without the program's name."""
    options = parse(argv)
    begun = time.monotonic()
    existing = _existing(options)
    clips, rejected = expand(options.sources)
    todo = [clip for clip in clips if not _is_done(clip, existing)]
    done = len(clips) - len(todo)
    unusable, todo = _split_unusable_head(todo, options)
    rejected += unusable
    if todo:
        storage.check_writable(options.out, "--out")
        existing = _make_way(existing, todo, options)
        outcomes = list(_report(run_on_ray(todo, options), todo, done, options.settings))
        rejected += _refusals(todo, outcomes)
    else:
        outcomes = []
    if not done and all(outcome.reason for outcome in outcomes):
        raise UserError(_nothing_usable(rejected))
    manifest = merge(existing or _empty_manifest(options.settings), outcomes, rejected)
    if manifest != existing:
        save_manifest(options.out, manifest)
        _remove_leftovers(options.out, manifest)
    _print_summary(manifest, rejected, options, time.monotonic() - begun)


def parse(argv: list[str]) -> Options:
    """The options that a command line gives.

    Raises:
        UserError: unknown, missing or wrong options.
    """
    values = _parser().parse_args(argv)
    start, stop = parse_frame_range(values.frames)
    if values.frames_per_sample < 1 or values.frames_per_sample % 2 == 0:
        raise UserError(f"--frames-per-sample must be an odd number, got {values.frames_per_sample}")
    if values.stride < 1:
        raise UserError(f"--stride must be at least 1, got {values.stride}")
    return Options(
        sources=tuple(values.source),
        out=storage.resolve(values.out),
        settings=SampleSettings(
            Degradation(values.degradation), values.frames_per_sample, values.stride, start=start, stop=stop
        ),
        overwrite=values.overwrite,
    )


def run_on_ray(clips: list[str], options: Options) -> Iterator[Outcome]:
    """Ingest ``clips`` on Ray Data, one task per clip; outcomes come as they are ready.

    A clip whose task dies again and again (a decoder that crashes) has no outcome; the others do.
    """
    from mana_dist import ray_runtime  # Ray takes seconds to import: only once there is work for it

    ray_runtime.start_ray()
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)  # the console is for our lines; the session's log files keep Ray's
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    work = ray.data.from_items([{"uri": clip} for clip in clips], override_num_blocks=min(len(clips), 10_000))
    with warnings.catch_warnings():
        # Ray Data tries a task whose process dies again for ever; 2.60 has no other way to say how often than this,
        # which it deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        results = work.map(functools.partial(_ingest_row, options=options), num_cpus=1, max_retries=2)
    for row in results.iter_rows():
        yield Outcome.from_json(row["outcome"])


def merge(manifest: Manifest, outcomes: Iterable[Outcome], rejected: Iterable[Rejected]) -> Manifest:
    """``manifest`` with the outcomes' sources added or replaced; order depends on the sources alone."""
    good = [outcome for outcome in outcomes if not outcome.reason]
    refused = {item.source: item for item in (*manifest.rejected, *rejected)}
    kept = without(manifest, {outcome.source.uri for outcome in good})
    sources = sorted([*kept.sources, *(outcome.source for outcome in good)], key=lambda source: source.uri)
    shards = sorted([*kept.shards, *(s for outcome in good for s in outcome.shards)], key=lambda shard: shard.path)
    usable = {source.uri for source in sources}
    return dataclasses.replace(
        manifest,
        samples=sum(shard.rows for shard in shards),
        shards=tuple(shards),
        sources=tuple(sources),
        rejected=tuple(refused[uri] for uri in sorted(refused) if uri not in usable),
    )


def without(manifest: Manifest, uris: Set[str]) -> Manifest:
    """``manifest`` without the samples of the sources ``uris``."""
    shards = tuple(shard for shard in manifest.shards if shard.source not in uris)
    return dataclasses.replace(
        manifest,
        samples=sum(shard.rows for shard in shards),
        shards=shards,
        sources=tuple(source for source in manifest.sources if source.uri not in uris),
    )


def _ingest_row(row: dict[str, str], options: Options) -> dict[str, str]:
    return {"outcome": ingest_clip(row["uri"], options.out, options.settings).to_json()}


def _existing(options: Options) -> Manifest | None:
    """The dataset to add to; None where there is none or it is to be replaced.

    Raises:
        UserError: it was made with other settings.
    """
    if options.overwrite:
        return None
    existing = find_manifest(options.out)
    if existing is not None and (differences := existing.differences(_empty_manifest(options.settings))):
        raise UserError(
            f"{options.out}: holds samples made with other settings ({'; '.join(differences)}); "
            "name another --out, or replace them with --overwrite"
        )
    return existing


def _empty_manifest(settings: SampleSettings) -> Manifest:
    return Manifest(
        degradation=settings.degradation.value,
        degradation_version=settings.degradation.version,
        scale=SCALE,
        frames=settings.frames_per_sample,
        stride=settings.stride,
        start=settings.start,
        stop=settings.stop,
        samples=0,
        shards=(),
        sources=(),
        rejected=(),
    )


def _is_done(clip: str, existing: Manifest | None) -> bool:
    if existing is None:
        return False
    known = {source.uri: source.bytes for source in existing.sources}
    return clip in known and known[clip] == size_of(clip)


def _split_unusable_head(clips: list[str], options: Options) -> tuple[list[Rejected], list[str]]:
    """The clips before the first that a look at its header does not refuse, and the rest.

    So a job without any usable clip ends before Ray starts, and a long list costs one look.
    """
    rejected: list[Rejected] = []
    for position, clip in enumerate(clips):
        reason = refuse_by_header(clip, options.settings)
        if not reason:
            return rejected, clips[position:]
        rejected.append(Rejected(clip, reason))
    return rejected, []


def _nothing_usable(rejected: list[Rejected]) -> str:
    first = f"{rejected[0].source}: {rejected[0].reason}"
    return first if len(rejected) == 1 else f"none of the {len(rejected)} sources is usable; the first: {first}"


def _refusals(clips: list[str], outcomes: list[Outcome]) -> list[Rejected]:
    """The clips that gave no samples: refused, or their task died."""
    reasons = {outcome.source.uri: outcome.reason for outcome in outcomes}
    lost = "the process that decoded it died, again and again"
    return [Rejected(clip, reasons.get(clip, lost)) for clip in clips if reasons.get(clip, lost)]


def _make_way(existing: Manifest | None, clips: list[str], options: Options) -> Manifest | None:
    """Take what this run replaces out of the manifest before its shards change under a reader; gives what is left."""
    kept = without(existing, set(clips)) if existing is not None else None
    if kept is not None and kept.samples:
        if kept != existing:
            save_manifest(options.out, kept)
        return kept
    filesystem, path = storage.filesystem(storage.join(options.out, MANIFEST_NAME))
    if filesystem.get_file_info(path).type == fs.FileType.File:
        filesystem.delete_file(path)
    return None


def _remove_leftovers(out: str, manifest: Manifest) -> None:
    """Delete shards that killed or replaced runs left in the folder."""
    filesystem, folder = storage.filesystem(out)
    named = {shard.path for shard in manifest.shards}
    for info in filesystem.get_file_info(fs.FileSelector(folder)):
        if _SHARD_NAME.fullmatch(info.base_name) and info.base_name not in named:
            filesystem.delete_file(info.path)
        elif info.base_name == PARTIAL_FOLDER:
            filesystem.delete_dir(info.path)


def _report(outcomes: Iterable[Outcome], clips: list[str], done: int, settings: SampleSettings) -> Iterator[Outcome]:
    """Pass ``outcomes`` on and print progress: a line per clip, for long lists one every few seconds."""
    again = f" ({done} more are there already)" if done else ""
    frames = f"{settings.frames_per_sample}-frame samples every {_count(settings.stride, 'frame')}"
    print(f"ingest: {_count(len(clips), 'clip')}{again}, {settings.degradation}, {frames}", flush=True)
    begun = printed = time.monotonic()
    samples = 0
    for number, outcome in enumerate(outcomes, 1):
        samples += outcome.source.samples
        now = time.monotonic()
        if len(clips) <= 20 or outcome.missing or now - printed > 5 or number == len(clips):
            left = (now - begun) / number * (len(clips) - number)
            print(f"[{number}/{len(clips)}] {_news(outcome)}; {samples} samples so far, {left:.0f} s left", flush=True)
            printed = now
        yield outcome


def _news(outcome: Outcome) -> str:
    name = clip_name(outcome.source.uri)
    if outcome.reason:
        return f"{name}: rejected"
    missing = f" (its last {_count(outcome.missing, 'frame')} cannot be decoded)" if outcome.missing else ""
    return f"{name}: {_count(outcome.source.samples, 'sample')}{missing}"


def _print_summary(manifest: Manifest, rejected: list[Rejected], options: Options, seconds: float) -> None:
    for item in rejected[:20]:
        print(f"rejected: {item.source}: {item.reason}", file=sys.stderr)
    if len(rejected) > 20:
        print(f"... and {len(rejected) - 20} more: see {MANIFEST_NAME}", file=sys.stderr)
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    print(
        f"{options.out}: {manifest.samples} samples of {_count(len(manifest.sources), 'clip')} in "
        f"{_count(len(manifest.shards), 'shard')}, {size:.1f} MB; {len(rejected)} rejected; {seconds:.1f} s"
    )
    print(f"train on it: python -m mana_dist.train --config tiny --data.path {shlex.quote(options.out)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _parser() -> Parser:
    parser = Parser(prog="python -m pipelines.ingest", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--source", nargs="+", required=True, metavar="URI", help="videos, frame folders, or folders of them"
    )
    parser.add_argument("--out", required=True, metavar="URI", help="folder of the dataset")
    parser.add_argument(
        "--degradation", choices=[kind.value for kind in Degradation], default="BI", help="how LR is made"
    )
    parser.add_argument("--frames", default=":", metavar="START:STOP", help="the frames to use of every source")
    parser.add_argument("--frames-per-sample", type=int, default=7, metavar="T", help="LR frames per sample, odd")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="frames between neighbouring centres")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset at --out, whatever made it")
    return parser


if __name__ == "__main__":
    run_command(main)
