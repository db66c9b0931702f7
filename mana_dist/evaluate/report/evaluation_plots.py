"""An evaluation's plots."""

import math
from typing import TYPE_CHECKING

from mana_dist.evaluate.config import BICUBIC
from mana_dist.evaluate.report import metrics_table
from mana_dist.evaluate.results import Evaluation
from mana_dist.report_pages import svg_plots
from mana_dist.report_pages.text import clean, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIPS_SHOWN = 40
GAIN, PSNR = "PSNR gain over bicubic against motion", "PSNR per clip"


def svgs(evaluation: Evaluation) -> dict[str, str]:
    """Return the plots that have something to show, as SVG elements by what they show."""
    drawn = {GAIN: gain_over_motion(evaluation), PSNR: psnr_per_clip(evaluation)}
    return {what: svg_plots.to_svg(figure, what) for what, figure in drawn.items() if figure is not None}


def gain_over_motion(evaluation: Evaluation) -> "Figure | None":
    """Plot PSNR gain over bicubic against motion, a point per clip and method (cf. the paper's Table 2).

    Returns:
        None if bicubic or another method is missing, or no clip has a motion and a finite gain.
    """
    if BICUBIC not in evaluation.methods:
        return None
    base = evaluation.methods.index(BICUBIC)
    plot = svg_plots.axes(4.2, "motion (LR pixels per frame)", "PSNR gain over bicubic (dB)")
    plot.axhline(0, **svg_plots.DASHED)
    for number, method in enumerate(evaluation.methods):
        points = [
            (clip.motion, gain)
            for clip in evaluation.clips
            if clip.motion is not None
            and (gain := metrics_table.gain(clip.scores[number].psnr_rgb, clip.scores[base].psnr_rgb)) is not None
        ]
        if points and number != base:
            svg_plots.scatter(plot, method, number, points)
    return svg_plots.with_legend(plot)


def psnr_per_clip(evaluation: Evaluation) -> "Figure | None":
    """Plot PSNR by clip and method: a row per clip, at most ``CLIPS_SHOWN``, those in which methods differ most.

    Returns:
        None if no PSNR is finite.
    """
    clips = metrics_table.most_different_clips(evaluation, CLIPS_SHOWN)
    plot = svg_plots.axes(1.2 + 0.28 * len(clips), "PSNR (dB)", "")
    for number, method in enumerate(evaluation.methods):
        rows = enumerate(clip.scores[number].psnr_rgb for clip in clips)
        points = [(psnr, float(row)) for row, psnr in rows if math.isfinite(psnr)]
        if points:
            svg_plots.scatter(plot, method, number, points)
    plot.set_yticks(range(len(clips)), [shortened(clean(clip.clip), 30) for clip in clips], parse_math=False)
    plot.set_ylim(len(clips) - 0.5, -0.5)
    return svg_plots.with_legend(plot)
