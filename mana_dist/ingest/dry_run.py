"""An estimate of what an ingest would do, from headers alone: clips, frames, samples, bytes and time."""

import math
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass

from mana_dist import ray_runtime
from mana_dist.data.config import SampleSettings
from mana_dist.data.manifest import Rejected
from mana_dist.errors import UserError, one_line
from mana_dist.footage.expand import Clip
from mana_dist.ingest.run_unit import bare_reason, refusal
from mana_dist.progress import count, duration
from mana_dist.video.header_info import HeaderInfo, probe_header

LOOKED_AT = 1000
"""Headers read at most; of more clips, a random choice stands for all."""

# Speeds: `python -m benchmarks.ingest` (1164 samples of 720p H.264, both of two x86-64 cores, AMD EPYC, at work,
# 2026-11-22) took 72 ms of a core per sample, of which writing is rather more than half. Size: eight real clips (0.27
# to 0.65 each).
MEGAPIXELS_PER_SECOND = 30.0
"""Per core: decoding, looking for cuts, degrading and optical flow, per pixel of the source."""
RAW_MEGABYTES_PER_SECOND = 95.0
"""Per core: compressing and writing samples, per byte of their pixels."""
COMPRESSED = 0.45
"""Bytes of shards per byte of their samples' pixels."""
VIDEO_BYTES_PER_PIXEL = 0.02
"""Bytes per pixel of a compressed video, to guess the length where no header has it, raw streams mostly
(two real ones have 0.011 and 0.030)."""
START_SECONDS = 8.0
"""To start Ray and look for the sources; roughly."""

_READERS = 16
_LISTED = 20  # rejected clips named one by one
_SIZES = 12  # rows of the table; rarer sizes share one more


@dataclass(frozen=True)
class Work:
    """An amount of work and what it makes."""

    clips: float = 0.0  # that give samples
    frames: float = 0.0  # that are read
    samples: float = 0.0  # at most: what has cuts, duplicates or no detail gives fewer
    bytes: float = 0.0  # of the shards, estimated
    seconds: float = 0.0  # of one core, estimated

    def times(self, factor: float) -> "Work":
        """Return ``factor`` times as much."""
        return Work(*(factor * value for value in astuple(self)))

    def longest(self, segment_frames: int) -> float:
        """Return the seconds that one core must do of a clip's work: long videos are cut into segments."""
        return self.seconds * min(1.0, segment_frames / max(self.frames, 1.0))

    @staticmethod
    def sum(parts: Iterable["Work"]) -> "Work":
        """Return all of ``parts`` together."""
        return Work(*map(sum, zip(*map(astuple, [Work(), *parts]), strict=True)))


@dataclass(frozen=True)
class DryRun:
    """What an ingest would do; ``str()`` of it is a report for people.

    Attributes:
        sizes: width and height of sources as shown, pixels, and the work on all of that size; most work first.
        rejected: what would be rejected, of the clips looked at.
        clips: clips altogether.
        looked_at: of how many the header was read.
        guessed: of how many of those the length was guessed from the bytes.
        cores: that would share the work.
        longest: seconds of one core for the longest piece of work that cannot be shared.
    """

    sizes: tuple[tuple[tuple[int, int], Work], ...]
    rejected: tuple[Rejected, ...]
    clips: int
    looked_at: int
    guessed: int
    cores: int
    longest: float

    @property
    def total(self) -> Work:
        """All sizes together."""
        return Work.sum(work for _, work in self.sizes)

    @property
    def seconds(self) -> float:
        """Return how long it would take, estimated."""
        return START_SECONDS + max(self.total.seconds / self.cores, self.longest)

    def __str__(self) -> str:
        refused = [f"would be rejected: {item.source}: {item.reason}" for item in self.rejected[:_LISTED]]
        if len(self.rejected) > _LISTED:
            refused.append(f"... and {len(self.rejected) - _LISTED} more")
        made = f"at most {self.total.samples:.0f} samples, {bytes_text(self.total.bytes)}"
        time = f"about {duration(self.seconds)} on {count(self.cores, 'core')}"
        return "\n".join([*_table(self), *refused, f"{made}, {time}", *_assumptions(self)])


@dataclass(frozen=True)
class _Inspected:
    """One clip by its header: its size as shown and the work it makes, or why it would be rejected."""

    size: tuple[int, int] = (0, 0)
    work: Work = Work()
    guessed: bool = False
    rejected: Rejected | None = None


def _table(run: DryRun) -> list[str]:
    rows = [(f"{width}x{height}", work) for (width, height), work in run.sizes[:_SIZES]]
    if len(run.sizes) > _SIZES:
        others = run.sizes[_SIZES:]
        rows.append((f"{len(others)} others", Work.sum(work for _, work in others)))
    lines = [f"{'source':>12} {'clips':>9} {'frames':>11} {'samples':>11} {'bytes':>9} {'core time':>10}"]
    for name, work in [*rows, ("total", run.total)]:
        counts = f"{work.clips:9.0f} {work.frames:11.0f} {work.samples:11.0f}"
        lines.append(f"{name:>12} {counts} {bytes_text(work.bytes):>9} {duration(work.seconds):>10}")
    return lines


def _assumptions(run: DryRun) -> list[str]:
    rates = f"{MEGAPIXELS_PER_SECOND:g} megapixels of source and {RAW_MEGABYTES_PER_SECOND:g} MB of samples a second"
    lines = [
        "  assumes that every frame decodes and none is a duplicate, a flat picture or next to a shot cut",
        f"  and {rates} and core, compressed to {COMPRESSED:.0%} (720p H.264, AMD EPYC at full load; no network)",
    ]
    if run.looked_at < run.clips:
        lines.append(f"  from the headers of {run.looked_at} clips chosen at random, taken for all {run.clips}")
    if run.guessed:
        length = f"their length: guessed at {VIDEO_BYTES_PER_PIXEL:g} bytes per pixel"
        lines.append(f"  the headers of {count(run.guessed, 'clip')} do not tell {length}")
    return lines


def estimate(
    clips: Sequence[Clip],
    settings: SampleSettings,
    *,
    rejected: Iterable[Rejected] = (),
    segment_frames: int = 1000,
    cores: int | None = None,
    seed: int = 0,
) -> DryRun:
    """Return what ingesting ``clips`` would do; reads headers alone, of :data:`LOOKED_AT` clips at most.

    Args:
        clips: what would be ingested.
        settings: how samples would be made.
        rejected: what is refused already.
        segment_frames: frames of a long video that make a task.
        cores: that would share the work; those of the Ray cluster or the machine unless given.
        seed: of the choice among many clips.
    """
    chosen: Sequence[Clip] = clips
    if len(clips) > LOOKED_AT:
        chosen = random.Random(seed).sample(clips, LOOKED_AT)  # noqa: S311  (no secret)
    with ThreadPoolExecutor(_READERS) as readers:
        inspected = list(readers.map(lambda clip: _inspect(clip, settings), chosen))
    sizes: dict[tuple[int, int], list[Work]] = defaultdict(list)
    for one in inspected:
        if one.rejected is None:
            sizes[one.size].append(one.work)
    factor = len(clips) / max(len(chosen), 1)
    works = {size: Work.sum(parts).times(factor) for size, parts in sizes.items()}
    refused = [one.rejected for one in inspected if one.rejected is not None]
    return DryRun(
        sizes=tuple(sorted(works.items(), key=lambda item: (-item[1].seconds, item[0]))),
        rejected=tuple(sorted((*rejected, *refused), key=lambda item: item.source)),
        clips=len(clips),
        looked_at=len(chosen),
        guessed=sum(one.guessed for one in inspected),
        cores=cores or _cores(),
        longest=max((one.work.longest(segment_frames) for one in inspected), default=0.0),
    )


def _inspect(clip: Clip, settings: SampleSettings) -> _Inspected:
    try:
        header = probe_header(clip.uri, clip.files)
    except UserError as error:
        return _Inspected(rejected=Rejected(clip.uri, bare_reason(error, clip.uri)))
    except OSError as error:
        return _Inspected(rejected=Rejected(clip.uri, f"cannot be read ({one_line(error)})"))
    frames, guessed = _used_frames(clip, header)
    reason = refusal(header.width, header.height, None if guessed else frames, clip, settings)
    if reason:
        return _Inspected(rejected=Rejected(clip.uri, reason))
    return _Inspected((header.width, header.height), _work(clip, header, frames, settings), guessed)


def _used_frames(clip: Clip, header: HeaderInfo) -> tuple[int, bool]:
    """Return how many frames of ``clip`` would be used, and whether that is a guess."""
    frames = header.frames
    if frames is None:
        frames = round((clip.bytes or 0) / (VIDEO_BYTES_PER_PIXEL * header.width * header.height))
    return clip.used(frames), header.frames is None


def _work(clip: Clip, header: HeaderInfo, frames: int, settings: SampleSettings) -> Work:
    width, height = (side // clip.downscale // settings.scale for side in (header.width, header.height))
    windows = max(0, frames - settings.frames_per_sample + 1)
    samples = -(-windows // settings.stride)
    if settings.patch:
        samples *= -(-width // settings.patch) * -(-height // settings.patch)
        width = height = settings.patch
    raw = samples * 3 * width * height * (settings.frames_per_sample + settings.scale**2)
    pixels = (clip.start + frames) * header.width * header.height  # the frames before are decoded too
    seconds = pixels / (1e6 * MEGAPIXELS_PER_SECOND) + raw / (1e6 * RAW_MEGABYTES_PER_SECOND)
    return Work(1, frames, samples, COMPRESSED * raw, seconds)


def _cores() -> int:
    """Return the CPU cores that would do the work: of the cluster that ``RAY_ADDRESS`` names, else of this machine."""
    if not ray_runtime.cluster_address():
        return os.cpu_count() or 1
    ray_runtime.start_ray()
    import ray  # takes seconds

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def bytes_text(number: float) -> str:
    """``1.5 kB``, ``420 MB``: bytes for people, in powers of 1000."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(int(math.log10(max(number, 1.0))) // 3, len(units) - 1)
    number /= 1000.0**power
    return f"{number:.1f} {units[power]}" if power and number < 100 else f"{number:.0f} {units[power]}"
