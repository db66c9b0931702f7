"""The ingest's work on Ray Data: long videos are planned, then units are run, one to a CPU."""

import contextlib
import functools
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

from mana_dist.data.settings import SampleSettings
from mana_dist.errors import UserError
from mana_dist.video.strict import Segment, plan_segments
from pipelines.ingest import units
from pipelines.ingest.console import count
from pipelines.ingest.ledger import Ledger
from pipelines.ingest.run_unit import RETRY_SECONDS, run_unit, unfinished
from pipelines.ingest.sources import Clip
from pipelines.ingest.units import Unit, UnitResult

BYTES_PER_FRAME = 8192
"""A video with fewer bytes than this for each frame of a segment is not worth planning."""
_BLOCKS = 10_000

Task = Callable[[dict[str, str]], dict[str, str]]


def plan(clips: Sequence[Clip], out: str, settings: SampleSettings, segment_frames: int) -> list[Unit]:
    """All units of ``clips``; long videos are read once through, undecoded, to find where they can be cut.

    Where that is goes into the ledger: a run that is stopped leaves it to the next.
    """
    is_long = {clip: clip.files is None and (clip.bytes or 0) > segment_frames * BYTES_PER_FRAME for clip in clips}
    planned = list(units.pack((clip for clip in clips if not is_long[clip]), settings))
    long_clips = [clip for clip in clips if is_long[clip]]
    recorded = Ledger(out).find_plans(_plan_name(clip, settings, segment_frames) for clip in long_clips)
    unplanned = []
    for clip in long_clips:
        if segments := recorded.get(_plan_name(clip, settings, segment_frames)):
            planned += units.split(clip, segments, settings)
        else:
            unplanned.append(clip)
    if unplanned:
        print(f"ingest: reading {count(len(unplanned), 'long video')} to find where to cut", flush=True)
    task = functools.partial(_plan_row, out=out, settings=settings, segment_frames=segment_frames)
    for text in map_on_ray([units.whole([clip], settings).to_json() for clip in unplanned], task):
        row = json.loads(text)
        segments = [Segment(**segment) for segment in row["segments"]]
        planned += units.split(Unit.from_json(row["unit"]).clips[0], segments, settings)
    named = {unit.clips[0] for unit in planned}
    planned += [units.whole([clip], settings) for clip in long_clips if clip not in named]  # the planner died of them
    return sorted(planned, key=lambda unit: unit.name)


def run(planned: Sequence[Unit], out: str, settings: SampleSettings) -> Iterator[UnitResult]:
    """Run all units; results come as they are ready.

    A unit whose process dies, or of which a clip cannot be read, is run again alone, its clips apart; what dies once
    more is given up.
    """
    task = functools.partial(_run_row, out=out, settings=settings)
    missing = {unit.name: unit for unit in planned}
    for attempt in ("together", "apart"):
        if attempt == "apart":
            apart = [[units.whole([clip], settings) for clip in unit.clips] for unit in missing.values()]
            alone = [[unit] if unit.segment else parts for unit, parts in zip(missing.values(), apart, strict=True)]
            missing = {unit.name: unit for parts in alone for unit in parts}
            task = functools.partial(task, pauses=())  # they have been waited for
        ordered = sorted(missing.values(), key=units.work, reverse=True)  # the longest first: they would end last
        for text in map_on_ray([unit.to_json() for unit in ordered], task):
            result = UnitResult.from_json(text)
            if not result.apart:
                del missing[result.name]
                yield result
        # The death of a process takes the results of all units of its block along.
        for result in Ledger(out).find(missing).values() if missing else ():
            del missing[result.name]
            yield result
    for unit in missing.values():
        yield unfinished(unit, "the process that decoded it died, again and again")


def map_on_ray(items: Sequence[str], task: Task) -> Iterator[str]:
    """``task`` on every item, on Ray Data, in any order; an item whose process dies again and again gives nothing."""
    if not items:
        return
    from mana_dist import ray_runtime  # Ray takes seconds to import: only once there is work for it

    ray_runtime.start_ray()
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)  # the console is for our lines; the session's log files keep Ray's
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    work = ray.data.from_items([{"item": item} for item in items], override_num_blocks=min(len(items), _BLOCKS))
    with warnings.catch_warnings():
        # Ray Data tries a task whose process dies again for ever; 2.60 has no other way to say how often than this,
        # which it deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        results = work.map(task, num_cpus=1, max_retries=2)
    for row in results.iter_rows():
        yield row["item"]


def _plan_name(clip: Clip, settings: SampleSettings, segment_frames: int) -> str:
    return f"{units.unit_name([clip], settings)}-{segment_frames}"


def _plan_row(row: dict[str, str], out: str, settings: SampleSettings, segment_frames: int) -> dict[str, str]:
    clip = Unit.from_json(row["item"]).clips[0]
    segments: list[Segment] = []
    for pause in (*RETRY_SECONDS, None):
        try:
            segments = plan_segments(clip.uri, segment_frames, units.overlap(settings), clip.start, clip.stop)
            with contextlib.suppress(OSError):  # of use to a later run alone
                Ledger(out).save_plan(_plan_name(clip, settings, segment_frames), segments)
            break
        except UserError:
            break  # running it will tell what is wrong
        except OSError:
            if pause is not None:
                time.sleep(pause)
    values = [vars(segment) for segment in segments or [Segment(None, clip.start, None)]]
    return {"item": json.dumps({"unit": row["item"], "segments": values})}


def _run_row(
    row: dict[str, str], out: str, settings: SampleSettings, pauses: Sequence[float] = RETRY_SECONDS
) -> dict[str, str]:
    return {"item": run_unit(Unit.from_json(row["item"]), out, settings, pauses).to_json()}
