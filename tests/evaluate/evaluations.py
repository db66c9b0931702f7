"""Made-up results for the tests of the reports."""

import numpy as np

from mana_dist.evaluate.protocol import Protocol
from mana_dist.evaluate.report import evaluation_page, evaluation_plots
from mana_dist.evaluate.results import ClipScores, Evaluation, Example, Scores
from mana_dist.metrics import psnr, psnr_y, ssim, ssim_y
from mana_dist.pictures import Region

PROTOCOL = Protocol(
    data=["vid4", "s3://bucket/*.mp4"],
    degradation="BI",
    degradation_definition="MATLAB's",
    degradation_version=1,
    frames="all",
    lpips="not available: no trunk",
    padding="reflection",
    device="cpu",
    mana_dist="0.0.0",
)
MEASURES = {"psnr_rgb": psnr, "ssim_rgb": ssim, "psnr_y": psnr_y, "ssim_y": ssim_y}
HOSTILE = "<script>alert(1)</script>\" onload='x' & | `*é漢\x01\udcff $style"


def scores(psnr: float, lpips: float | None = None, frames: int = 3, ssim: float | None = None) -> Scores:
    """SSIM is a hundredth of PSNR if not given, luma 1 dB and 0.01 above RGB."""
    ssim = psnr / 100 if ssim is None else ssim
    return Scores(
        {"psnr_rgb": psnr, "ssim_rgb": ssim, "lpips": lpips, "psnr_y": psnr + 1, "ssim_y": ssim + 0.01}, frames=frames
    )


def clip(name: str, *found: Scores, dataset: str = "vid4", motion: float | None = 1.0, note: str = "") -> ClipScores:
    return ClipScores(clip=name, dataset=dataset, scores=found, motion=motion, notes=(note,) if note else ())


def evaluation(
    methods: tuple[str, ...],
    *clips: ClipScores,
    examples: tuple[Example, ...] = (),
    top_motion: tuple[str, ...] | None = None,
    protocol: Protocol = PROTOCOL,
) -> Evaluation:
    return Evaluation(protocol=protocol, methods=methods, clips=clips, examples=examples, top_motion=top_motion)


def example(name: str, methods: int, difference: float = 1.0, side: int = 32) -> Example:
    """A part whose pictures are each of one level: LR 10, the methods 50, 60, ..., HR 200."""
    levels = [50 + 10 * number for number in range(methods)]
    lr, hr, *outputs = (
        np.full((length, length, 3), level, np.uint8)
        for length, level in [(side // 4, 10), (side, 200), *((side, level) for level in levels)]
    )
    return Example(name, 2, Region(8, 4, side, side, difference), lr, hr, outputs)


def page_of(found: Evaluation) -> str:
    """The report's page, with the plots."""
    return evaluation_page.page(found, evaluation_plots.svgs(found))
