"""One unit into its shards: the task that the ingest runs, with nothing of Ray in it."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mana_dist import storage
from mana_dist.data.config import MIN_LR_SIDE, SampleSettings
from mana_dist.data.samples import ShardWriter
from mana_dist.errors import UserError, one_line, redacted
from mana_dist.footage.expand import Clip
from mana_dist.ingest.finished_units import Ledger
from mana_dist.ingest.units import ClipResult, Unit, UnitResult
from mana_dist.storage.lease import LostError
from mana_dist.video.frame_folders import folder_frames
from mana_dist.video.frame_names import breaks_in, describe_breaks
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.strict import Damage, DamageFound, numbered_frames, survey

if TYPE_CHECKING:
    from mana_dist.data.sampling import Tally

RETRY_SECONDS = (2, 4, 8, 16, 30)
"""Pauses before a unit is tried again whose storage failed: a minute in all."""


class _SpoiledError(Exception):
    """A clip of the unit turned out to be damaged while its samples were being written."""

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip.uri)
        self.clip = clip


class _WriteError(Exception):
    """The output cannot be written."""


def run_unit(
    unit: Unit,
    out: str,
    settings: SampleSettings,
    pauses: Sequence[float] = RETRY_SECONDS,
    check: Callable[[], None] = lambda: None,
) -> UnitResult:
    """Make all samples of ``unit`` and write its shards into the folder ``out``; never raises.

    The unit's record goes into the ledger last. A storage that fails is tried again after each of ``pauses``, seconds;
    a file that must not be read fails the unit at once. What cannot be used of a clip goes into its result. The other
    clips of a unit that could not be read can be tried without the one that is to blame. Before the record ``check`` is
    called: a LostError, that another attempt has the folder, fails the unit for good.
    """
    for pause in (*pauses, None):
        try:
            result = _run(unit, out, settings)
            with _writing():
                check()
                Ledger(out).save(result)
            return result
        except LostError as error:
            return unfinished(unit, one_line(error), fatal=True)
        except _WriteError as error:
            failure = unfinished(unit, f"{out} cannot be written: {one_line(error)}", fatal=True)
        except PermissionError as error:
            failure = unfinished(unit, f"cannot be read ({one_line(error)}); mend that and run the same command again")
            break
        except OSError as error:
            failure = unfinished(unit, f"the storage failed ({one_line(error)}); run the same command again")
        except Exception as error:  # raised it would drop a whole block of units, and the reason with them
            return unfinished(unit, f"{type(error).__name__}: {one_line(error)}")
        if pause is None or not storage.is_remote(out if failure.fatal else unit.clips[0].uri):
            break
        time.sleep(pause)
    return dataclasses.replace(failure, apart=len(unit.clips) > 1 and not failure.fatal)


def unfinished(unit: Unit, failure: str, *, fatal: bool = False) -> UnitResult:
    """The result of a unit that could not be finished."""
    clips = tuple(ClipResult(clip.uri, reason=failure) for clip in unit.clips)
    return UnitResult(unit.name, unit.group, clips=clips, failure=failure, fatal=fatal)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Tell failures of the output from those of reading."""
    try:
        yield
    except OSError as error:
        raise _WriteError(error) from error


def _run(unit: Unit, out: str, settings: SampleSettings) -> UnitResult:
    """Write the unit; begin again, knowing which frames to leave out, whenever a clip turns out to be damaged."""
    damage: dict[str, Damage] = {}
    while True:
        try:
            return _write(unit, out, settings, damage)
        except _SpoiledError as spoiled:
            # With the clips after it: to begin again for each of them would cost a pack of many its square.
            for clip in unit.clips[unit.clips.index(spoiled.clip) :]:
                found = _survey(clip, unit)
                if found.reason or clip == spoiled.clip:
                    damage[clip.uri] = found


def _survey(clip: Clip, unit: Unit) -> Damage:
    if clip.files is not None:
        return Damage((), "")
    try:
        return survey(clip.uri, unit.segment, start=clip.start, stop=clip.stop)
    except UserError as error:
        return Damage((range(sys.maxsize),), bare_reason(error, clip.uri))


def _write(unit: Unit, out: str, settings: SampleSettings, damage: dict[str, Damage]) -> UnitResult:
    with ShardWriter(out, stem=unit.name, unit=unit.group) as writer:
        results = [_write_clip(clip, unit, settings, damage.get(clip.uri), writer) for clip in unit.clips]
        with _writing():
            shards = writer.close()
    return UnitResult(unit.name, unit.group, shards, tuple(results))


def _write_clip(
    clip: Clip, unit: Unit, settings: SampleSettings, damage: Damage | None, writer: ShardWriter
) -> ClipResult:
    from mana_dist.data.sampling import Sampler  # imports OpenCV: slow, and of use in the workers alone

    sampler = Sampler(settings, clip.downscale)
    source = _Watched(_frames(clip, unit, damage))
    begin, end = unit.centres
    centres = range(begin, sys.maxsize if end is None else end)
    trouble = damage.reason if damage is not None else ""
    try:
        breaks = () if clip.files is None else breaks_in(clip.files)
        samples = sampler.samples(source, clip=clip.source, first=clip.start, centres=centres, breaks=frozenset(breaks))
        for sample in samples:
            with _writing():
                writer.add(sample, clip=clip.name, source=clip.source)
    except DamageFound as error:
        if damage is not None:
            raise AssertionError(f"{clip.uri}: damage found again") from error
        raise _SpoiledError(clip) from error
    except UserError as error:
        trouble = bare_reason(error, clip.uri)
    except (OSError, _WriteError, MemoryError):
        raise  # not the clip's fault: to be tried again
    except Exception as error:  # one clip must not take the job down
        trouble = f"{type(error).__name__}: {one_line(error)}"
    tally = sampler.tally
    lost = _lost(clip, source.count)
    result = ClipResult(
        clip.uri, tally.frames, tally.samples, tally.cuts, tally.duplicates, tally.flat, trouble or lost
    )
    if tally.samples:
        return result
    reason = trouble or refusal(*source.size, tally.frames, clip, settings) or _no_window(tally, settings, lost)
    return dataclasses.replace(result, reason=reason)


def _frames(clip: Clip, unit: Unit, damage: Damage | None) -> Iterator[NumberedFrame]:
    if clip.files is not None:
        return folder_frames(clip.uri, clip.files, clip.start, clip.stop)
    return numbered_frames(clip.uri, unit.segment, start=clip.start, stop=clip.stop, damage=damage)


def bare_reason(error: UserError, uri: str) -> str:
    """The error's line without the URI in front, which stands beside it in every record."""
    return " ".join(str(error).removeprefix(f"{redacted(uri)}: ").split())


def refusal(width: int, height: int, used: int | None, clip: Clip, settings: SampleSettings) -> str:
    """Return why ``used`` frames of this size (None: not known how many) can give no sample; empty if they can."""
    least = settings.scale * max(MIN_LR_SIDE, settings.patch) * clip.downscale
    if min(width, height) < least:
        return f"{width}x{height} is too small; both sides must be at least {least}"
    if used is not None and used < settings.frames_per_sample:
        return f"only {used} frames in the range asked for; a sample needs {settings.frames_per_sample}"
    return ""


def _lost(clip: Clip, read: int) -> str:
    """What a folder lacks, of which ``read`` pictures could be read; empty where nothing is known to be missing."""
    if clip.files is None:
        return ""
    names = clip.files[clip.start : clip.stop]
    unreadable = f"{len(names) - read} of its pictures cannot be read" if len(names) > read else ""
    return "; ".join(filter(None, [unreadable, describe_breaks(names, breaks_in(names))]))


def _no_window(tally: "Tally", settings: SampleSettings, lost: str) -> str:
    needed = f"a sample needs {settings.frames_per_sample}"
    why = {"repeat the one before (--min-change)": tally.duplicates, "are shot cuts (--keep-cuts)": tally.cuts}
    why |= {"samples have no detail (--min-detail)": tally.flat}
    found = ", ".join(f"{number} {what}" for what, number in why.items() if number)
    return f"no sample in its {tally.frames} frames: {'; '.join(filter(None, [found or needed + ' in a row', lost]))}"


class _Watched(Iterator[tuple[int, NDArray[np.uint8]]]):
    """Passes numbers and frames on, counts them and remembers the size of the last, width and height."""

    def __init__(self, frames: Iterator[NumberedFrame]) -> None:
        self._frames = frames
        self.size = (sys.maxsize, sys.maxsize)
        self.count = 0

    def __next__(self) -> tuple[int, NDArray[np.uint8]]:
        frame = next(self._frames)
        height, width = frame.pixels.shape[:2]
        self.size = (width, height)
        self.count += 1
        return frame.number, frame.pixels
