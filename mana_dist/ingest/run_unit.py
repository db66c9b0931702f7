"""One unit into its shards: the task that the ingest runs, with nothing of Ray in it."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mana_dist import storage
from mana_dist.data.config import MIN_LR_SIDE, SampleSettings
from mana_dist.data.degradation import BI
from mana_dist.data.samples import ShardWriter
from mana_dist.errors import UserError, one_line, redacted
from mana_dist.footage.expand import Clip
from mana_dist.footage.pairs import MismatchError
from mana_dist.ingest.finished_units import Ledger
from mana_dist.ingest.pair_frames import MEND, frames_of, pair_frames
from mana_dist.ingest.units import COUNTS, QUALITIES, ClipResult, Unit, UnitResult
from mana_dist.storage.lease import LostError
from mana_dist.video.colours import Frame
from mana_dist.video.frame_names import breaks_in, describe_breaks
from mana_dist.video.strict import Damage, DamageFound, survey

if TYPE_CHECKING:
    from mana_dist.data.samples import Sample
    from mana_dist.data.sampling import Given, Tally
    from mana_dist.footage.given_lr import GivenLr

RETRY_SECONDS = (2, 4, 8, 16, 30)
"""Pauses before a unit is tried again whose storage failed: a minute in all."""


class _SpoiledError(Exception):
    """A clip of the unit turned out to be damaged, or no pair, while its samples were being written."""

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
    damage: dict[str, Damage] = {}  # by the URIs of videos
    no_pairs: dict[str, str] = {}  # why, by the URIs of HR frames
    while True:
        try:
            return _write(unit, out, settings, damage, no_pairs)
        except _SpoiledError as spoiled:
            # With the clips after it: to begin again for each of them would cost a pack of many its square.
            for clip in unit.clips[unit.clips.index(spoiled.clip) :]:
                is_no_pair = clip == spoiled.clip and isinstance(spoiled.__cause__, MismatchError)
                if not is_no_pair:
                    damage |= _survey(clip, unit, always=clip == spoiled.clip)
                if clip.lr is not None and (reason := _difference(clip, unit, settings, damage)):
                    no_pairs[clip.uri] = reason


def _survey(clip: Clip, unit: Unit, *, always: bool) -> dict[str, Damage]:
    """Return the damage of the clip's videos; ``always``: where there is none too."""
    found: dict[str, Damage] = {}
    for uri, files in ((clip.uri, clip.files), (clip.lr, clip.lr_files)):
        if uri is None or files is not None:
            continue
        try:
            damage = survey(uri, unit.segment, start=clip.start, stop=clip.stop)
        except UserError as error:
            damage = Damage((range(sys.maxsize),), bare_reason(error, uri))
        if damage.reason or always:
            found[uri] = damage
    return found


def _difference(clip: Clip, unit: Unit, settings: SampleSettings, damage: Mapping[str, Damage]) -> str:
    """Return why HR and LR frames of a pair do not match; empty: they do."""
    try:
        for _ in _Reading(clip, unit, settings, damage).samples():
            pass
    except MismatchError as error:
        return bare_reason(error, clip.uri)
    except Exception:  # which is told where its samples are written
        return ""
    return ""


def _write(
    unit: Unit, out: str, settings: SampleSettings, damage: Mapping[str, Damage], no_pairs: Mapping[str, str]
) -> UnitResult:
    with ShardWriter(out, stem=unit.name, unit=unit.group) as writer:
        results = [
            ClipResult(clip.uri, reason=no_pairs[clip.uri])
            if clip.uri in no_pairs
            else _write_clip(clip, unit, settings, damage, writer)
            for clip in unit.clips
        ]
        with _writing():
            shards = writer.close()
    return UnitResult(unit.name, unit.group, shards, tuple(results))


class _Reading:
    """A clip's frames on their way to samples.

    Attributes:
        source: the frames.
        sampler: what makes samples of them.
        notes: what is to be said of given LR frames, once all were read.
    """

    def __init__(self, clip: Clip, unit: Unit, settings: SampleSettings, damage: Mapping[str, Damage]) -> None:
        from mana_dist.data.sampling import Sampler  # imports OpenCV: slow, and of use in the workers alone

        self._clip, self._centres = clip, unit.centres
        self.notes: tuple[str, ...] = ()
        self._given: GivenLr | None = None
        if clip.lr is None:
            frames = frames_of(clip.uri, clip.files, clip, unit.segment, damage.get(clip.uri))
            self.source = _Watched((frame.number, frame.pixels) for frame in frames)
        else:
            from mana_dist.footage import given_lr

            self._given = given_lr.GivenLr(clip.lr, clip.uri, BI, settings.scale, every_frame=True, mend=MEND)
            self.source = _Watched(pair_frames(clip, settings.scale, damage))
        self.sampler: Sampler = Sampler(settings, clip.downscale, self._compare if clip.lr else None)

    def _compare(self, number: int, hr: Frame, lr: Frame) -> Frame:
        assert self._given is not None
        self._given.add(number, hr, lr)
        return self._given.made

    def samples(self) -> Iterator["Sample"]:
        """Stream the samples.

        Raises:
            MismatchError: HR and LR frames do not match.
            DamageFound, UserError, OSError: as :func:`mana_dist.video.strict.numbered_frames`.
        """
        clip, (begin, end) = self._clip, self._centres
        breaks = {number for files in (clip.files, clip.lr_files) for number in breaks_in(files or ())}
        centres = range(begin, sys.maxsize if end is None else end)
        yield from self.sampler.samples(
            self.source, clip=clip.source, first=clip.start, centres=centres, breaks=frozenset(breaks)
        )
        if self._given is not None:
            self.notes = self._given.notes()


def _write_clip(
    clip: Clip, unit: Unit, settings: SampleSettings, damage: Mapping[str, Damage], writer: ShardWriter
) -> ClipResult:
    reading = _Reading(clip, unit, settings, damage)
    sampler, source = reading.sampler, reading.source
    known = [damage[uri] for uri in (clip.uri, clip.lr or clip.uri) if uri in damage]
    trouble = "; ".join(dict.fromkeys(found.reason for found in known if found.reason))
    try:
        for sample in reading.samples():
            with _writing():
                writer.add(sample, clip=clip.name, source=clip.source)
    except DamageFound as error:
        if known:
            raise AssertionError(f"{clip.uri}: damage found again") from error
        raise _SpoiledError(clip) from error
    except MismatchError as error:
        raise _SpoiledError(clip) from error
    except UserError as error:
        trouble = bare_reason(error, clip.uri)
    except (OSError, _WriteError, MemoryError):
        raise  # not the clip's fault: to be tried again
    except Exception as error:  # one clip must not take the job down
        trouble = f"{type(error).__name__}: {one_line(error)}"
    tally = sampler.tally
    lost = "; ".join(filter(None, [_lost(clip, source.count), *reading.notes]))
    result = ClipResult(
        clip.uri,
        **{name: getattr(tally, name) for name in COUNTS},
        looks=len(sampler.qualities),
        **{name: sum(getattr(look, name) for look in sampler.qualities) for name in QUALITIES},
        hashes="".join(f"{look.hash:016x}" for look in sampler.qualities if look.hash is not None),
        note=trouble or lost,
    )
    if tally.samples:
        return result
    reason = trouble or refusal(*source.size, tally.frames, clip, settings) or _no_window(tally, settings, lost)
    return dataclasses.replace(result, reason=reason)


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
    why |= {"samples move too little or too much (--min-motion, --max-motion)": tally.wrong_motion}
    found = ", ".join(f"{number} {what}" for what, number in why.items() if number)
    return f"no sample in its {tally.frames} frames: {'; '.join(filter(None, [found or needed + ' in a row', lost]))}"


class _Watched(Iterator["Given"]):
    """Passes numbers and frames on, counts them and remembers the size of the last, width and height."""

    def __init__(self, frames: "Iterator[Given]") -> None:
        self._frames = frames
        self.size = (sys.maxsize, sys.maxsize)
        self.count = 0

    def __next__(self) -> "Given":
        frame = next(self._frames)
        height, width = frame[1].shape[:2]
        self.size = (width, height)
        self.count += 1
        return frame
