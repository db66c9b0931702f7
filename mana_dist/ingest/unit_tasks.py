"""The ingest's work on Ray Data: long videos are planned, then units are run, one to a CPU."""

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Sequence

from mana_dist.child_task import Step
from mana_dist.console import log
from mana_dist.data.config import SampleSettings
from mana_dist.errors import UserError, one_line
from mana_dist.footage.expand import Clip
from mana_dist.ingest import units
from mana_dist.ingest.finished_units import Ledger
from mana_dist.ingest.run_unit import RETRY_SECONDS, run_unit, unfinished
from mana_dist.ingest.units import Unit, UnitResult
from mana_dist.progress import count
from mana_dist.ray_tasks import map_on_ray
from mana_dist.storage.lease import Fence, LostError
from mana_dist.video.strict import Segment, plan_segments

BYTES_PER_FRAME = 8192
"""A video with fewer bytes than this for each frame of a segment is not worth planning."""


def plan(clips: Sequence[Clip], out: str, settings: SampleSettings, segment_frames: int) -> list[Unit]:
    """Return all units of ``clips``; long videos are read once, undecoded, to find where they can be cut.

    The places to cut go into the ledger: a run that is stopped leaves them to the next. Pairs are never cut.
    """
    is_long = {
        clip: clip.files is None and clip.lr is None and (clip.bytes or 0) > segment_frames * BYTES_PER_FRAME
        for clip in clips
    }
    planned = list(units.pack((clip for clip in clips if not is_long[clip]), settings))
    names = {clip: _plan_name(clip, settings, segment_frames) for clip in clips if is_long[clip]}
    segments = Ledger(out).find_plans(names.values())
    unplanned = [units.whole([clip], settings).to_json() for clip, name in names.items() if name not in segments]
    if unplanned:
        log.info(f"ingest: reading {count(len(unplanned), 'long video')} to find where to cut")
    task = functools.partial(_plan_row, out=out, settings=settings, segment_frames=segment_frames)
    for text in map_on_ray(unplanned, task, _name):
        name, found = json.loads(text)
        segments[name] = [Segment(**segment) for segment in found]
    for clip, name in names.items():  # where the planner died of a clip, it is one unit
        planned += units.split(clip, segments.get(name) or [_all_of(clip)], settings)
    return sorted(planned, key=lambda unit: unit.name)


def _all_of(clip: Clip) -> Segment:
    return Segment(None, clip.start, None)


def run(planned: Sequence[Unit], out: str, settings: SampleSettings, fence: Fence) -> Iterator[UnitResult]:
    """Run all units; results come as they are ready.

    A unit whose process dies, or of which a clip cannot be read, is run again alone, its clips apart; what dies once
    more is given up. Once another attempt has the folder ``out``, nothing more is begun.
    """
    task = functools.partial(_run_row, out=out, settings=settings, fence=fence)
    missing = {unit.name: unit for unit in planned}
    for attempt in ("together", "apart"):
        if attempt == "apart":
            apart = [[units.whole([clip], settings) for clip in unit.clips] for unit in missing.values()]
            alone = [[unit] if unit.segment else parts for unit, parts in zip(missing.values(), apart, strict=True)]
            missing = {unit.name: unit for parts in alone for unit in parts}
            task = functools.partial(task, pauses=())  # they have been waited for
        ordered = sorted(missing.values(), key=units.work, reverse=True)  # the longest first: they would end last
        for text in map_on_ray([unit.to_json() for unit in ordered], task, _name):
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


def _plan_name(clip: Clip, settings: SampleSettings, segment_frames: int) -> str:
    return f"{units.unit_name([clip], settings)}-{segment_frames}"


def _name(item: str) -> str:
    unit = Unit.from_json(item)
    return unit.clips[0].name if len(unit.clips) == 1 and not unit.segment else unit.name


def _plan_row(item: str, _: Step, out: str, settings: SampleSettings, segment_frames: int) -> str:
    clip = Unit.from_json(item).clips[0]
    name = _plan_name(clip, settings, segment_frames)
    segments: list[Segment] = []
    length = max(segment_frames, settings.degradation.block)
    for pause in (*RETRY_SECONDS, None):
        try:
            segments = plan_segments(clip.uri, length, units.planned_overlap(settings), clip.start, clip.stop)
            with contextlib.suppress(OSError):  # of use to a later run alone
                Ledger(out).save_plan(name, segments)
            break
        except UserError:
            break  # running it will tell what is wrong
        except OSError:
            if pause is not None:
                time.sleep(pause)
    return json.dumps([name, [vars(segment) for segment in segments or [_all_of(clip)]]])


def _run_row(
    item: str, _: Step, out: str, settings: SampleSettings, fence: Fence, pauses: Sequence[float] = RETRY_SECONDS
) -> str:
    unit = Unit.from_json(item)
    try:
        fence.check()
    except LostError as error:
        return unfinished(unit, one_line(error), fatal=True).to_json()
    except OSError as error:
        return unfinished(unit, f"{out} cannot be read: {one_line(error)}", fatal=True).to_json()
    return run_unit(unit, out, settings, pauses, fence.check).to_json()
