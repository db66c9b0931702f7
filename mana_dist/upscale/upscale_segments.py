"""Upscaling of segments: decoded once, windows within shots, one encoder a segment.

Decoding, the network and encoding run beside each other, each in a thread of its own.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import torch

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.model import Mana
from mana_dist.model.inference import Pixels, choose_device, super_resolve
from mana_dist.model.precision import PrecisionChoice, precision_here
from mana_dist.model.tiling import Tiling, tiling_for
from mana_dist.upscale.config import Settings
from mana_dist.upscale.frame_memory import automatic
from mana_dist.upscale.overlap import WriteBehind, read_ahead
from mana_dist.upscale.segment_files import Writers
from mana_dist.upscale.segments import Segment
from mana_dist.upscale.source_video import Survey, blamed_on_source, context
from mana_dist.upscale.sources import Source, open_source
from mana_dist.video.colours import to_8_bits
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.shots import mark_cuts

Step = Callable[[], None]
_FP32 = PrecisionChoice("fp32", "the default")

_READ_AHEAD = 8  # frames of the source; they are small
_WRITTEN_BEHIND = 2  # upscaled frames, sixteen times as large


@dataclass(frozen=True)
class Network:
    """The network, ready to upscale the frames of a shot.

    Attributes:
        frames: T, of a window.
        upscale: frames of a shot, numbers of those wanted -> the upscaled ones; may read ahead.
        device: where it runs.
        tiling: how a frame is cut; None: not at all.
        memory: MiB for activations that led to the tiling; None: no limit.
        precision: what it computes in, and why.
    """

    frames: int
    upscale: Callable[[Iterable[Pixels], Container[int]], Iterator[Pixels]]
    device: str = "cpu"
    tiling: Tiling | None = None
    memory: int | None = None
    precision: PrecisionChoice = _FP32


def network(model: Mana, settings: Settings, survey: Survey) -> Network:
    """Prepare ``model`` as the settings say; ``auto`` device, precision and memory are decided here.

    The number of threads is set for this process.

    Raises:
        UserError: the device is not there.
    """
    device = choose_device(settings.device)
    if settings.threads is not None and device == "cpu":
        torch.set_num_threads(settings.threads)
    choice = precision_here(settings.precision, device)
    element_size = 2 if choice.precision == "bf16" else 4
    memory = None if settings.memory is None else 0
    if settings.memory == "auto":
        memory = automatic(model.config, device, survey.height, survey.width, element_size)
    elif settings.memory is not None:
        memory = settings.memory * 2**20

    tiling = None
    if memory is not None:
        tiling = tiling_for(model.config, survey.height, survey.width, memory, element_size)

    def upscale(frames: Iterable[Pixels], wanted: Container[int]) -> Iterator[Pixels]:
        return super_resolve(model, frames, device, memory=memory, precision=choice.precision, wanted=wanted)

    return Network(model.config.frames, upscale, device, tiling, memory and memory // 2**20, choice)


def upscale_segments(
    survey: Survey,
    segments: Sequence[Segment],
    network: Network,
    settings: Settings,
    folder: str,
    step: Step | None = None,
) -> None:
    """Make ``segments``, which follow each other: in ``folder`` the files of :func:`.segment_files.files_of`.

    All are whole under their names or not there; the record, the last, says that the segment is finished.

    Args:
        survey: survey of the source, which is decoded once, from before the first segment to beyond the last.
        segments: result of :func:`mana_dist.upscale.source_video.segments_of`, without a gap.
        network: see :func:`network`.
        settings: how to write.
        folder: URI; made if it is not there.
        step: called after every frame, in the caller's thread; the last few frames may still be being written.

    Raises:
        SourceError: frames of several sizes, or encrypted.
        UserError: the source is missing here, or the encoder does not take such frames.
        OSError: the source's storage failed, or ``folder`` cannot be written; another try may help.
    """
    if not storage.is_remote(folder):
        os.makedirs(storage.resolve(folder), exist_ok=True)
    bits = min(survey.bits, settings.bits)
    with ExitStack() as stack:
        with blamed_on_source():
            source = stack.enter_context(open_source(survey, segments[0], context(network.frames)))
        writers = stack.enter_context(Writers(survey, segments, settings, folder, bits))
        write = stack.enter_context(WriteBehind(writers.add, _WRITTEN_BEHIND))
        # All that ends the reading is in the thread too: it never reads on where a single thread would have stopped.
        marked = _with_segments(_same_size(source, survey, bits), segments, context(network.frames))
        ahead = stack.enter_context(closing(read_ahead(_with_cuts(marked), _READ_AHEAD)))
        last = -1
        for shot in _shots(ahead):
            for result in network.upscale(shot, shot):
                item = shot.next_wanted()
                assert item.segment is not None
                last = item.frame.number
                begins_shot = item.begins_shot and last > item.segment.first
                write(item.segment, item.frame, result, missing=item.missing, begins_shot=begins_shot)
                if step is not None:
                    step()
        write.wait()
        end = segments[-1].end  # what is wrong with a source beyond a range of its frames is none of the range's
        writers.finish("" if end is not None and last + 1 >= end else source.cut_off)


@dataclass(frozen=True)
class _MarkedFrame:
    """A frame, its segment and its shot.

    Attributes:
        frame: it.
        segment: the segment of the frame; None: only the windows of others need it.
        missing: how many frames are missing before it.
        begins_shot: whether it is the first after a cut.
    """

    frame: NumberedFrame
    segment: Segment | None
    missing: int = 0
    begins_shot: bool = False


class _Shot:
    """The frames of one shot as the network reads them, and which of them are wanted."""

    def __init__(self, items: Iterable[_MarkedFrame]) -> None:
        self._items = items
        self._waiting: deque[_MarkedFrame] = deque()
        self._first = 0  # number of the first that waits

    def __iter__(self) -> Iterator[Pixels]:
        for item in self._items:
            self._waiting.append(item)
            yield item.frame.pixels

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        return self._waiting[number - self._first].segment is not None

    def next_wanted(self) -> _MarkedFrame:
        """Return the frame of the network's next result."""
        while True:
            item = self._waiting.popleft()
            self._first += 1
            if item.segment is not None:
                return item


def _with_cuts(marked: Iterable[_MarkedFrame]) -> Iterator[_MarkedFrame]:
    for item, is_cut in mark_cuts(marked, lambda item: to_8_bits(item.frame.pixels)):
        yield replace(item, begins_shot=is_cut)


def _shots(marked: Iterable[_MarkedFrame]) -> Iterator[_Shot]:
    """Yield the shots; one must be read to its end before the next."""
    number = 0

    def shot_of(item: _MarkedFrame) -> int:
        nonlocal number
        number += item.begins_shot
        return number

    for _, shot in itertools.groupby(marked, shot_of):
        yield _Shot(shot)


def _same_size(source: Source, survey: Survey, bits: int) -> Iterator[NumberedFrame]:
    with blamed_on_source():
        for frame in source.frames(bits=bits):
            height, width = frame.pixels.shape[:2]
            if (height, width) != (survey.height, survey.width):
                if frame.damaged:  # its size is part of the damage: it is missing
                    continue
                raise UserError(
                    f"{survey.uri}: frame {frame.number} is {width}x{height}, the first one {survey.width}x"
                    f"{survey.height}; all frames of a video must have one size: split it there first"
                )
            yield frame


def _with_segments(frames: Iterable[NumberedFrame], segments: Sequence[Segment], around: int) -> Iterator[_MarkedFrame]:
    """Yield the segments' frames, and as many as ``around`` before and after them."""
    before: deque[_MarkedFrame] = deque(maxlen=around)
    at = 0
    after = 0
    begun = False
    last: int | None = None
    for frame in frames:
        missing = 0 if last is None else max(frame.number - last - 1, 0)
        last = frame.number
        while at < len(segments) and _is_beyond(frame, segments[at]):
            at += 1
        if at == len(segments):
            after += 1
            yield _MarkedFrame(frame, None)
            if after == around:
                return
        elif not begun and _is_before(frame, segments[0]):
            before.append(_MarkedFrame(frame, None))
        else:
            begun = True
            yield from before
            before.clear()
            yield _MarkedFrame(frame, segments[at], missing)


def _is_before(frame: NumberedFrame, segment: Segment) -> bool:
    if frame.number < segment.first:
        return True
    return frame.time < segment.pts if segment.pts is not None else frame.number < segment.start


def _is_beyond(frame: NumberedFrame, segment: Segment) -> bool:
    if segment.end is not None and frame.number >= segment.end:
        return True
    if segment.pts_stop is not None:
        return frame.time >= segment.pts_stop
    return segment.pts is None and segment.stop is not None and frame.number >= segment.stop
