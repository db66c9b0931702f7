"""A table of metrics of image quality against a reference, each with every choice that changes its numbers.

A new metric is a :class:`Metric` in a new module here; tables, ``metrics.json``, ``--promote-if`` and MLflow then have
it.
"""

from collections.abc import Mapping

from mana_dist.kinds import Table
from mana_dist.metrics.flicker import flicker
from mana_dist.metrics.metric import Measure, Metric, Network, PairMeasure, Unavailable
from mana_dist.metrics.psnr_ssim import PSNR, SSIM, luma, psnr, psnr_y, ssim, ssim_y
from mana_dist.metrics.trail import Trail, follow

PAPERS = ("psnr_rgb", "ssim_rgb", "lpips", "psnr_y", "ssim_y")
"""Names of the metrics of the paper, whose definitions are fields of the protocol."""
METRICS = Table(Metric, __name__, __path__, first=PAPERS)

__all__ = [
    "METRICS",
    "PAPERS",
    "PSNR",
    "SSIM",
    "Measure",
    "Metric",
    "Network",
    "PairMeasure",
    "Trail",
    "Unavailable",
    "flicker",
    "follow",
    "load_all",
    "luma",
    "psnr",
    "psnr_y",
    "ssim",
    "ssim_y",
]


def load_all(weights: Mapping[str, str | None]) -> dict[str, Measure | PairMeasure | Unavailable]:
    """Load every metric.

    Args:
        weights: files of weights, by metric, where the user names one.

    Raises:
        UserError: such a file cannot be used. A metric that is missing otherwise is :class:`Unavailable`.
    """
    return {name: metric.load(weights.get(name)) for name, metric in METRICS.items()}
