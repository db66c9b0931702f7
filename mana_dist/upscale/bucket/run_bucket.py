"""Upscaling of many videos, from the sources to the report."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mana_dist import storage
from mana_dist.console import log
from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError
from mana_dist.footage.expand import Clip, expand
from mana_dist.footage.rejected_lines import nothing_usable
from mana_dist.model.precision import PrecisionChoice
from mana_dist.model_names import is_folder
from mana_dist.progress import count
from mana_dist.ray_metrics import RayMetrics
from mana_dist.registry import model_folder, pretrained, versions
from mana_dist.registry.tracking_uri import resolve_tracking_uri
from mana_dist.storage import lease
from mana_dist.storage.lease import Lease
from mana_dist.upscale import mark, work_folder
from mana_dist.upscale.bucket import stages
from mana_dist.upscale.bucket.bucket_report import BucketReport, SegmentLines, check_free, log_result
from mana_dist.upscale.bucket.config import BucketOptions
from mana_dist.upscale.bucket.finished import ResultRecords
from mana_dist.upscale.bucket.output_names import Output, outputs_of, without_results
from mana_dist.upscale.bucket.segment_tasks import Failure, Recipe, Video
from mana_dist.upscale.comparison import comparison_of
from mana_dist.upscale.destination import check_destination, clear_comparison, is_done
from mana_dist.upscale.join import Summary
from mana_dist.upscale.segments import Segment

_NONE = "no source holds a video; name videos or folders of them as --source"


def upscale_all(options: BucketOptions) -> BucketReport:
    """Bring the results up to the sources: what is there stays, what is unfinished goes on.

    Returns:
        What was made, and what was refused and why.

    Raises:
        UserError: nothing is usable, not all could be finished, or another attempt is at work on the results.
    """
    options = options.checked()
    pretrained.announce(options.model)
    try:
        return _upscale_all(options)
    except OSError as error:  # those of sources are in the results
        raise UserError(f"{options.out}: its storage failed ({error}); run the same command again") from error


def _upscale_all(options: BucketOptions) -> BucketReport:
    begun = time.monotonic()
    outputs, rejected = _sources(options)
    if not outputs:
        raise UserError(nothing_usable(rejected, _NONE))
    storage.check_writable(options.out, "--out")
    if not options.overwrite:
        check_free(options.out)
    with lease.hold(options.out, f"--out {options.out}", "name another --out") as held:
        _check_destination(storage.join(options.out, f"NAME{options.suffix}"), outputs[0].source, options)
        return _run(options, outputs, rejected, held, begun)


def _run(
    options: BucketOptions, outputs: Sequence[Output], rejected: Sequence[Rejected], held: Lease, begun: float
) -> BucketReport:
    recipe = dataclasses.replace(_recipe(options), fence=held.fence)
    records = ResultRecords(options.out)
    choice = _precision(recipe, records)
    recipe = dataclasses.replace(recipe, precision=choice.precision)
    keyed = [output.keyed(_decisive(recipe)) for output in outputs]
    finished = records.finished(keyed)
    there = [(output, finished[output.key]) for output in keyed if output.key in finished]
    todo = [output for output in keyed if output.key not in finished]
    _check_free([output for output in todo if records.is_occupied(output)], recipe, options)
    again = f" ({len(there)} more are there already)" if there else ""
    log.info(f"upscale: {count(len(todo), 'video')}{again}, {options.settings.codec}, on {recipe.settings.device}")
    log.info(f"precision: {choice}")
    made, refused, failed = _work(todo, records, recipe, options, held)
    held.check()
    report = BucketReport([*there, *made], [*rejected, *refused], failed)
    report.write(options.out, recipe)
    if not report.results and not failed:
        raise UserError(nothing_usable(report.rejected, _NONE))
    report.log(options.out, len(there), time.monotonic() - begun)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(outputs)} videos are not finished; the first: {failed[0].source}: "
            f"{failed[0].reason}; run the same command again"
        )
    return report


def _check_free(occupied: Sequence[Output], recipe: Recipe, options: BucketOptions) -> None:
    """Check that nothing is lost where results go; what may be replaced is that of the same job, killed too early.

    Raises:
        UserError: something else lies there.
    """
    for output in occupied:
        _check_destination(output.uri, output.source, options)
        marked = mark.mark(recipe.sha256, output.bytes, recipe.settings)
        is_done(output.uri, marked, output.modified, recipe.settings, overwrite=options.overwrite)
        if options.overwrite and not options.settings.compare:
            clear_comparison(output.uri, marked)


def _check_destination(uri: str, source: str, options: BucketOptions) -> None:
    check_destination(uri if options.suffix else f"{uri}/", source, options.settings)


def _sources(options: BucketOptions) -> tuple[list[Output], list[Rejected]]:
    found, rejected, notes, _ = expand(options.sources)
    for note in notes:
        log.info(note)
    clips = []
    for clip in without_results(found, options.sources, options.out):
        if reason := _refusal(clip):
            rejected.append(Rejected(clip.uri, reason))
        else:
            clips.append(clip)
    outputs = []
    for output in outputs_of(clips, options.sources, options.out, str(options.suffix)):
        written = (output.uri, *(comparison_of(output.uri) if options.settings.compare else ()))
        if reason := next(filter(None, map(storage.name_problem, written)), ""):
            rejected.append(Rejected(output.source, f"{reason}, as its result {output.name}; rename it"))
        else:
            outputs.append(output)
    return outputs, rejected


def _refusal(clip: Clip) -> str:
    """Return why a clip of the ingest cannot be upscaled; empty if it can."""
    if clip.files is not None:
        return "is a folder of pictures; only videos are upscaled"
    if (clip.start, clip.stop, clip.downscale) != (0, None, 1):
        return "its list names frames or a downscale, which is for the ingest; only whole videos are upscaled"
    return ""


def _recipe(options: BucketOptions) -> Recipe:
    tracking_uri = resolve_tracking_uri(options.tracking_uri)
    model = options.model
    if is_folder(model):
        model = storage.resolve(model)  # workers run in other folders
    elif found := versions.resolve(model, tracking_uri):
        model = found.uri  # an alias may move meanwhile
    _, config, sha256 = model_folder.load_identified(model, tracking_uri)
    device = stages.device(options.settings.device)
    threads = options.cpus if device == "cpu" else None  # named: they decide the last bits
    settings = dataclasses.replace(options.settings, device=device, threads=threads)
    return Recipe(model, tracking_uri, sha256, config.model.frames, config.model.scale, settings)


def _precision(recipe: Recipe, records: ResultRecords) -> PrecisionChoice:
    """Return the precision of the whole job; ``auto`` is what it was when the folder of the results was begun."""
    wanted, device = recipe.settings.precision, recipe.settings.device
    if wanted == "auto" and (before := records.precision(device)) is not None:
        return PrecisionChoice(before, "as the results were begun")
    choice = stages.precision(wanted, device)
    if wanted == "auto":
        records.save_precision(device, choice.precision)
    return choice


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """Return what decides the bytes of all results, beside their sources."""
    settings = dataclasses.asdict(recipe.settings) | {"precision": recipe.precision}
    return {"model": recipe.sha256, "settings": settings, "versions": work_folder.versions()}


def _work(
    todo: Sequence[Output], records: ResultRecords, recipe: Recipe, options: BucketOptions, held: Lease
) -> tuple[list[tuple[Output, Summary]], list[Rejected], list[Rejected]]:
    """Upscale ``todo``: the results, what was refused, and what failed."""
    if not todo:
        return [], [], []
    records.clear_partial(todo)
    results: list[tuple[Output, Summary]] = []
    failures: dict[Output, Failure] = {}
    videos = _readable(todo, records, recipe, failures)
    for output, failure in failures.items():
        if failure.rejected:
            records.forget(output)  # here alone: segments that were finished show that later trouble may pass
    with RayMetrics(results=os.path.basename(options.out.rstrip("/"))) as metrics:
        metrics.add("mana_upscale_failed_videos_total", len(failures))
        for video, found in _made(videos, records, recipe, options, metrics):
            held.check_lately()
            if isinstance(found, Failure):
                metrics.add("mana_upscale_failed_videos_total", int(video.output not in failures))
                failures.setdefault(video.output, found)
            else:
                records.save(video.output, found)
                log_result(video.output, found)
                results.append((video.output, found))
    refused, failed = (
        [Rejected(output.source, failure.reason) for output, failure in failures.items() if failure.rejected is kind]
        for kind in (True, False)
    )
    return results, refused, failed


def _readable(
    todo: Sequence[Output], records: ResultRecords, recipe: Recipe, failures: dict[Output, Failure]
) -> list[Video]:
    """Return the videos of ``todo`` that can be read, the longest first: they would end last."""
    videos = []
    for output, found in stages.inspect(todo, [records.folder(output) for output in todo], recipe):
        if isinstance(found, Failure):
            failures[output] = found
        else:
            videos.append(found)
    return sorted(videos, key=lambda video: (-video.survey.frames, video.output.name))


def _made(
    videos: Sequence[Video], records: ResultRecords, recipe: Recipe, options: BucketOptions, metrics: RayMetrics
) -> Iterator[tuple[Video, Summary | Failure]]:
    """Yield all videos as they are finished, or failed."""
    if not videos:
        return
    done = {video.output.key: records.finished_segments(video.output) for video in videos}
    missing: dict[str, list[Segment]] = {
        video.output.key: [segment for segment in video.segments if segment.name not in done[video.output.key]]
        for video in videos
    }
    jobs = [(video, segment) for video in videos for segment in missing[video.output.key]]
    total = sum(len(video.segments) for video in videos)
    if len(jobs) < total:
        log.info(f"going on: {total - len(jobs)} of {total} segments were finished before")
    joins = stages.Joins(recipe)
    for video in videos:
        if not missing[video.output.key]:
            joins.start(video)
    lines = SegmentLines(videos, missing)
    left = {key: len(segments) for key, segments in missing.items()}
    count_of_workers = stages.workers(recipe, options.workers, options.cpus)
    for video, segment, failure in stages.upscale(jobs, recipe, count_of_workers, options.cpus):
        if failure is None:
            lines.add(video, segment)
            metrics.add("mana_upscale_segments_total")
            metrics.add("mana_upscale_frames_total", video.frames(segment))
            metrics.set("mana_upscale_done_ratio", lines.done_ratio)
            left[video.output.key] -= 1
            if not left[video.output.key]:
                joins.start(video)
        else:
            yield video, failure
        yield from joins.done(wait=False)
    yield from joins.done(wait=True)
