"""Units of work: what one task ingests, and its result.

A unit is a pack of small clips, a clip, or a segment of a long video. Its name holds a hash of everything that its
samples depend on (the sources' identity, the settings), and its shards begin with that name: the same work always gives
the same files, and other work never touches them.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import CLIP_FILTERS, NEWER_SETTINGS, SCHEMA_VERSION, Shard
from mana_dist.errors import redacted
from mana_dist.footage.expand import Clip
from mana_dist.video import READER_VERSION
from mana_dist.video.shots import CUT_DETECTOR, CUT_MARGIN
from mana_dist.video.strict import Segment

PACK_BYTES = 128 * 2**20
"""Frame folders in one unit, bytes; some hundred septuplets."""
PACK_CLIPS = 512
PACKS = 64
"""Into how many units little work is spread, however little, so that every CPU has its share."""
VIDEO_WEIGHT = 32
"""How many bytes of pictures a byte of a compressed video stands for."""


_FILES = ("files", "lr_files")


@dataclass(frozen=True)
class Unit:
    """What one task ingests.

    Attributes:
        name: its shards' names begin with it.
        group: the name of all units of one video together; a unit that is no segment has its own name there.
        clips: the clips, or the one that ``segment`` is of.
        segment: the part of the clip; None for whole clips.
        centres: the first frame number that may be a sample's centre, and the first that may not any more (None: all
            to the end): segments overlap, samples do not.
    """

    name: str
    group: str
    clips: tuple[Clip, ...]
    segment: Segment | None = None
    centres: tuple[int, int | None] = (0, None)

    def to_json(self) -> str:
        """Return it as text, which crosses Ray Data's blocks as it is."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Unit":
        """Return what :meth:`to_json` made the text of."""
        values = json.loads(text)
        segment = values["segment"] and Segment(**values["segment"])
        clips = tuple(
            Clip(**{**clip, **{name: clip[name] and tuple(clip[name]) for name in _FILES}}) for clip in values["clips"]
        )
        return Unit(values["name"], values["group"], clips, segment, tuple(values["centres"]))


COUNTS = ("frames", "samples", "cuts", "duplicates", "flat", "wrong_motion")
"""The fields of a clip's result, of its row in the table of sources and of a tally that count."""
QUALITIES = ("detail", "blockiness", "blur")
"""What is measured of the frames that are looked at (:mod:`mana_dist.data.frame_quality`)."""
_NO_PART = "none of its parts gives a sample; the first: "


@dataclass(frozen=True)
class ClipResult:
    """The result of a clip, or of a segment of it."""

    uri: str  # the clip's, without passwords
    frames: int = 0
    samples: int = 0
    cuts: int = 0  # shot cuts found
    duplicates: int = 0  # frames left out because they repeat the one before
    flat: int = 0  # samples left out for want of detail
    wrong_motion: int = 0  # samples left out for their motion
    looks: int = 0  # frames that were looked at
    detail: float = 0.0  # their sum, grey levels
    blockiness: float = 0.0  # their sum
    blur: float = 0.0  # their sum
    hashes: str = ""  # of those that are not flat, 16 hexadecimal digits each
    note: str = ""  # what was lost; empty where nothing was
    reason: str = ""  # why there are no samples; empty where there are

    def mean(self, name: str) -> float | None:
        """Return the mean of one of :data:`QUALITIES`; None where no frame was looked at."""
        return float(getattr(self, name)) / self.looks if self.looks else None

    def __post_init__(self) -> None:
        """Hide secrets of URIs: it goes into the ledger."""
        for name in ("uri", "note", "reason"):
            object.__setattr__(self, name, redacted(getattr(self, name)))


@dataclass(frozen=True)
class UnitResult:
    """The result of a unit.

    Attributes:
        name, group: the unit's.
        shards: what was written.
        clips: of each clip.
        failure: why the unit could not be finished: storage that cannot be read or written, a process that died.
        fatal: whether that stops the job: the output cannot be written.
        apart: whether the unit's clips are to be tried each for itself: one of them cannot be read.
    """

    name: str
    group: str
    shards: tuple[Shard, ...] = ()
    clips: tuple[ClipResult, ...] = ()
    failure: str = ""
    fatal: bool = False
    apart: bool = False

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str | bytes) -> "UnitResult":
        """Return what :meth:`to_json` made the text of; ValueError if it is another text."""
        values = json.loads(text)
        try:
            shards = tuple(Shard(**shard) for shard in values.pop("shards"))
            clips = tuple(ClipResult(**clip) for clip in values.pop("clips"))
            return UnitResult(shards=shards, clips=clips, **values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a unit's result: {error}") from error


def by_clip(results: Iterable[UnitResult]) -> dict[str, tuple[str, ClipResult]]:
    """Return the unit and the result of each clip; the segments of a video are added up."""
    found: dict[str, tuple[str, ClipResult]] = {}
    for result in sorted(results, key=lambda result: result.name):
        for clip in result.clips:
            found[clip.uri] = (result.group, _sum(found[clip.uri][1], clip) if clip.uri in found else clip)
    return found


def _sum(a: ClipResult, b: ClipResult) -> ClipResult:
    notes = dict.fromkeys(note for note in (a.note, b.note) if note)
    counts = {name: getattr(a, name) + getattr(b, name) for name in (*COUNTS, "looks", *QUALITIES, "hashes")}
    added = ClipResult(a.uri, **counts, note="; ".join(notes))
    first = a.reason.removeprefix(_NO_PART)  # it counts the frames of its part alone
    return dataclasses.replace(added, reason="" if added.samples else _NO_PART + (first or b.reason))


def pack(clips: Iterable[Clip], settings: SampleSettings) -> Iterator[Unit]:
    """Pack whole clips into units: small neighbours together, videos and folders of frames apart.

    The units depend on the clips alone, not on the cluster: the same command makes the same units anywhere.
    """
    clips = list(clips)
    for is_video in (True, False):
        neighbours = [clip for clip in clips if (clip.files is None) == is_video]
        most = min(PACK_BYTES, sum(map(weight, neighbours)) // PACKS)
        pending: list[Clip] = []
        full = 0
        for clip in neighbours:
            size = weight(clip)
            if pending and (full + size > most or len(pending) == PACK_CLIPS):
                yield whole(pending, settings)
                pending, full = [], 0
            pending.append(clip)
            full += size
        if pending:
            yield whole(pending, settings)


def whole(clips: Sequence[Clip], settings: SampleSettings) -> Unit:
    """Return the unit of these clips."""
    name = unit_name(clips, settings)
    return Unit(name, name, tuple(clips))


def split(clip: Clip, segments: Sequence[Segment], settings: SampleSettings) -> list[Unit]:
    """Return a long video's units, one for each segment."""
    if len(segments) == 1:
        return [whole([clip], settings)]
    group = unit_name([clip], settings, segments)
    segments = list(_aligned(segments, settings))
    borders = [0, *(part.first + overlap(settings) // 2 for part in segments[1:]), None]
    return [
        Unit(f"{group}-s{number:05d}", group, (clip,), part, (begin or 0, end))
        for number, (part, begin, end) in enumerate(zip(segments, borders, borders[1:], strict=False))
    ]


def overlap(settings: SampleSettings) -> int:
    """Return how many frames a segment shares with the next: windows and the search for cuts need them."""
    return settings.frames_per_sample - 1 + 2 * CUT_MARGIN


def planned_overlap(settings: SampleSettings) -> int:
    """Return how many frames a segment must share with the next so that :func:`split` can shorten both to blocks."""
    return overlap(settings) + 2 * (settings.degradation.block - 1)


def _aligned(segments: Sequence[Segment], settings: SampleSettings) -> Iterator[Segment]:
    """Shorten segments to whole blocks of the degradation, whose LR frames then do not depend on who reads them."""
    block = settings.degradation.block
    firsts = [segments[0].first, *(-(-part.first // block) * block for part in segments[1:])]
    for part, first, following in zip(segments, firsts, [*firsts[1:], None], strict=True):
        end = None if part.frames is None else part.first + part.frames
        if following is not None and end is not None:
            end = min(end, -(-(following + overlap(settings)) // block) * block)
        yield Segment(part.pts, first, None if end is None else end - first, part.skip + first - part.first)


def weight(clip: Clip) -> int:
    """Return how much work a clip is, in bytes of pictures; a clip of unknown size fills a unit."""
    if clip.bytes is None:
        return PACK_BYTES
    return clip.bytes * (VIDEO_WEIGHT if clip.files is None else 1)


def work(unit: Unit) -> int:
    """Return how much work a unit is, in bytes of pictures; a segment is as much as a full pack."""
    return PACK_BYTES if unit.segment else max(1, sum(weight(clip) for clip in unit.clips))


def unit_name(clips: Sequence[Clip], settings: SampleSettings, segments: Sequence[Segment] = ()) -> str:
    """Return a name that people can read, that any storage takes, and that no other work has."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", clips[0].name).lstrip(".")[:60] or "clip"
    versions = {"version": settings.degradation.version, "reader": READER_VERSION, "cuts": CUT_DETECTOR}
    made_by = {**vars(settings), "degradation": settings.degradation.name, **versions, "schema": SCHEMA_VERSION}
    made_by |= {} if settings.recipe is None else {"recipe": settings.recipe}
    for name in ("scale", *NEWER_SETTINGS):  # units keep the names that older versions gave them
        if name in CLIP_FILTERS or made_by[name] == getattr(SampleSettings, name):
            del made_by[name]
    sources = [_identity(clip) for clip in clips]
    identity = json.dumps([made_by, sources, [dataclasses.astuple(segment) for segment in segments]])
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _identity(clip: Clip) -> tuple[object, ...]:
    values = dataclasses.astuple(dataclasses.replace(clip, uri=clip.source, lr=clip.lr and redacted(clip.lr)))
    return values if clip.lr else values[:-2]  # as older versions, which knew no pairs
