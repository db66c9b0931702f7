"""What a command line asks for, as its command hands it on."""

from collections.abc import Sequence
from unittest.mock import patch

from mana_dist.ingest import IngestOptions
from mana_dist.ingest.__main__ import main as ingest
from mana_dist.upscale import BucketOptions
from mana_dist.upscale.__main__ import main as upscale


def ingest_options(arguments: Sequence[str]) -> IngestOptions:
    """Return what ``mana ingest`` would do."""
    with patch("mana_dist.ingest.run_ingest.ingest") as called:
        ingest(arguments)
    options: IngestOptions = called.call_args.args[0]
    return options


def bucket_options(arguments: Sequence[str]) -> BucketOptions:
    """Return what ``mana upscale`` of many videos would do."""
    with patch("mana_dist.upscale.bucket.run_bucket.upscale_all") as called:
        upscale(arguments)
    options: BucketOptions = called.call_args.args[0]
    return options
