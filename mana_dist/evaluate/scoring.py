"""Running methods over clips and scoring every frame of theirs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import tee

from mana_dist import metrics
from mana_dist.data.degradation import Degradation, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.clips import Clip
from mana_dist.evaluate.methods import Method
from mana_dist.inference import Frame
from mana_dist.metrics.lpips import SMALLEST_SIDE as LPIPS_SMALLEST_SIDE
from mana_dist.metrics.psnr_ssim import SSIM_SIZE
from mana_dist.pictures import Region, most_different_region

Distance = Callable[[Frame, Frame], float]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over some frames.

    Attributes:
        psnr_rgb: dB.
        ssim_rgb: at most 1.
        lpips: 0 is best; None where it was not computed.
        psnr_y: dB, on luma.
        ssim_y: at most 1, on luma.
        frames: how many.
    """

    psnr_rgb: float
    ssim_rgb: float
    lpips: float | None
    psnr_y: float
    ssim_y: float
    frames: int


@dataclass(frozen=True)
class Example:
    """The part of a clip that a picture shows: where the compared frames differ most.

    Attributes:
        clip: its clip's name.
        frame: number in the clip, from the first evaluated one.
        region: where in the frame.
        lr: the region in the LR frame.
        hr: in the ground truth.
        outputs: in each method's frame, in the methods' order.
    """

    clip: str
    frame: int
    region: Region
    lr: Frame
    hr: Frame
    outputs: list[Frame]


def score_clip(
    clip: Clip,
    methods: Sequence[Method],
    degradation: Degradation,
    lpips: Distance | None,
    progress: Callable[[], None],
) -> tuple[list[Scores], Example]:
    """Every method over every frame of a clip, all methods in step, so that memory does not grow with the length.

    Args:
        clip: the ground truth.
        methods: at least one.
        degradation: makes the LR frames.
        lpips: None leaves that column empty.
        progress: called after each frame.

    Returns:
        Each method's means over the clip's frames, and the clip's most telling part.

    Raises:
        UserError: unreadable, or frames smaller than SSIM's window.
    """
    truth, source = tee(clip.frames())
    streams = tee((degrade(frame, degradation) for frame in source), len(methods) + 1)
    outputs = [method.upscale(stream) for method, stream in zip(methods, streams[1:], strict=True)]
    scores: list[list[Scores]] = [[] for _ in methods]
    example: Example | None = None
    for number, (hr, lr, *frames) in enumerate(zip(truth, streams[0], *outputs, strict=True)):
        _check_size(clip, hr)
        for collected, frame in zip(scores, frames, strict=True):
            collected.append(_score(frame, hr, lpips))
        # Two methods are compared with each other; one alone with the truth.
        region = most_different_region(frames[0], frames[-1] if len(frames) > 1 else hr)
        if example is None or region.difference > example.region.difference:
            cut = [region.of(frame).copy() for frame in frames]
            example = Example(clip.name, number, region, region.of_lr(lr).copy(), region.of(hr).copy(), cut)
        progress()
    if example is None:
        raise UserError(f"{clip.uri}: holds no frames")
    return [mean(collected, sum(entry.frames for entry in collected)) for collected in scores], example


def mean(scores: Sequence[Scores], frames: int) -> Scores:
    """The plain mean of each metric, over ``frames`` frames in all; LPIPS only if all have it."""
    distances = [entry.lpips for entry in scores if entry.lpips is not None]
    return Scores(
        psnr_rgb=_average([entry.psnr_rgb for entry in scores]),
        ssim_rgb=_average([entry.ssim_rgb for entry in scores]),
        lpips=_average(distances) if len(distances) == len(scores) else None,
        psnr_y=_average([entry.psnr_y for entry in scores]),
        ssim_y=_average([entry.ssim_y for entry in scores]),
        frames=frames,
    )


def _average(values: Sequence[float]) -> float:
    return math.inf if math.inf in values else math.fsum(values) / len(values)


def _score(frame: Frame, hr: Frame, lpips: Distance | None) -> Scores:
    large_enough = min(hr.shape[:2]) >= LPIPS_SMALLEST_SIDE
    return Scores(
        psnr_rgb=metrics.psnr(frame, hr),
        ssim_rgb=metrics.ssim(frame, hr),
        lpips=lpips(frame, hr) if lpips is not None and large_enough else None,
        psnr_y=metrics.psnr_y(frame, hr),
        ssim_y=metrics.ssim_y(frame, hr),
        frames=1,
    )


def _check_size(clip: Clip, hr: Frame) -> None:
    if min(hr.shape[:2]) < SSIM_SIZE:
        raise UserError(
            f"{clip.uri}: frames of {hr.shape[1]}x{hr.shape[0]} are smaller than SSIM's {SSIM_SIZE}x{SSIM_SIZE}"
        )
