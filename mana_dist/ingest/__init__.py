"""Videos and folders of frames into sharded training samples, on Ray Data.

>>> from mana_dist.ingest import IngestOptions, ingest
>>> manifest = ingest(IngestOptions(sources=("videos", "s3://bucket/more"), out="samples"))
>>> manifest.samples, manifest.rejected
"""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.data.config import SampleSettings
    from mana_dist.data.manifest import Manifest
    from mana_dist.ingest.config import IngestOptions
    from mana_dist.ingest.run_ingest import ingest

__all__ = ["IngestOptions", "Manifest", "SampleSettings", "ingest"]

__getattr__ = lazily(
    __name__,
    {
        ".config": "IngestOptions",
        ".run_ingest": "ingest",
        "..data.config": "SampleSettings",
        "..data.manifest": "Manifest",
    },
)
