"""One clip into its shards: the task that the ingest runs on every clip, with nothing of Ray in it."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation import Degradation
from mana_dist.data.manifest import Shard, Source
from mana_dist.data.samples import ShardWriter
from mana_dist.data.video import clip_name, read_frames
from mana_dist.errors import UserError
from pipelines.sources import check_header, size_of, too_short

SCALE = 4
MIN_LR_SIDE = 16
"""Least LR height and width, pixels: below it there is nothing to crop from."""


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made of a clip.

    Attributes:
        degradation: how LR frames are made.
        frames_per_sample: LR frames per sample (T), odd.
        stride: frames between neighbouring centres.
        start: first frame used of every clip.
        stop: first frame not used any more; None for the end.
    """

    degradation: Degradation
    frames_per_sample: int
    stride: int
    start: int
    stop: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of one clip.

    Attributes:
        source: the clip.
        shards: what was written.
        reason: why nothing was; empty where something was.
        missing: frames that its header counts but that could not be decoded.
    """

    source: Source
    shards: tuple[Shard, ...] = ()
    reason: str = ""
    missing: int = 0

    def to_json(self) -> str:
        """As text, which crosses Ray Data's blocks as it is."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Outcome":
        """Back from :meth:`to_json`."""
        values = json.loads(text)
        shards = tuple(Shard(**shard) for shard in values["shards"])
        return Outcome(Source(**values["source"]), shards, values["reason"], values["missing"])


def ingest_clip(uri: str, out: str, settings: SampleSettings) -> Outcome:
    """Make all samples of the clip at ``uri`` and write its shards into the folder ``out``; never raises."""
    try:
        return _ingest(uri, out, settings)
    except UserError as error:
        reason = bare_reason(error, uri)
    except Exception as error:  # one clip must not take the job down
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Outcome(Source(uri, 0, 0, 0), reason=reason)


def refuse_by_header(uri: str, settings: SampleSettings) -> str:
    """Why the clip's header and first frame show that it gives no sample; empty where they do not."""
    try:
        _frames_by_header(uri, settings)
    except UserError as error:
        return bare_reason(error, uri)
    return ""


def bare_reason(error: UserError, uri: str) -> str:
    """The error's line without the URI in front, which stands beside it in every record."""
    return " ".join(str(error).removeprefix(f"{uri}: ").split())


def shard_stem(uri: str) -> str:
    """The beginning of the names of a clip's shards: readable, safe in any storage, and its own."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", clip_name(uri)).lstrip(".")[:60] or "clip"
    return f"{readable}-{hashlib.sha256(uri.encode()).hexdigest()[:10]}"


def _ingest(uri: str, out: str, settings: SampleSettings) -> Outcome:
    from mana_dist.data.sampling import make_samples  # imports OpenCV: slow, and of use in the workers alone

    expected = _frames_by_header(uri, settings)
    frames = _Counted(read_frames(uri, settings.start, settings.stop))
    samples = make_samples(
        frames,
        settings.degradation,
        scale=SCALE,
        frames_per_sample=settings.frames_per_sample,
        stride=settings.stride,
        first=settings.start,
    )
    with ShardWriter(out, stem=shard_stem(uri), clip=clip_name(uri), source=uri) as writer:
        for sample in samples:
            writer.add(sample)
        shards = writer.close()
    if not shards:
        raise UserError(too_short(uri, frames.count, settings.frames_per_sample))
    source = Source(uri, size_of(uri), frames.count, sum(shard.rows for shard in shards))
    return Outcome(source, shards, missing=max(0, (expected or 0) - frames.count))


def _frames_by_header(uri: str, settings: SampleSettings) -> int | None:
    return check_header(uri, settings.frames_per_sample, settings.start, settings.stop, SCALE * MIN_LR_SIDE)


class _Counted(Iterator[NDArray[np.uint8]]):
    """Passes frames on and counts them."""

    def __init__(self, frames: Iterator[NDArray[np.uint8]]) -> None:
        self._frames, self.count = frames, 0

    def __next__(self) -> NDArray[np.uint8]:
        frame = next(self._frames)
        self.count += 1
        return frame
