"""A video file in, a larger video file out.

>>> from mana_dist.upscale import Settings, upscale
>>> summary = upscale("in.mp4", "out.mp4")
>>> summary = upscale("in.mp4", "out2.mp4", "models:/mana-x4@champion", Settings(codec="hevc"))
"""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.upscale.bucket.config import BucketOptions
    from mana_dist.upscale.bucket.run_bucket import upscale_all
    from mana_dist.upscale.config import Settings
    from mana_dist.upscale.join import Summary
    from mana_dist.upscale.run_upscale import upscale

__all__ = ["BucketOptions", "Settings", "Summary", "upscale", "upscale_all"]

__getattr__ = lazily(
    __name__,
    {
        ".config": "Settings",
        ".join": "Summary",
        ".run_upscale": "upscale",
        ".bucket.config": "BucketOptions",
        ".bucket.run_bucket": "upscale_all",
    },
)
