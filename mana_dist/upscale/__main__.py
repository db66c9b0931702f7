"""``python -m mana_dist.upscale SRC DST --model MODEL``: a video file in, a 4x video file out."""

import argparse
from collections.abc import Sequence
from typing import Any

from mana_dist.arguments import Parser
from mana_dist.errors import run_command
from mana_dist.upscale.config import CODECS, SEGMENT_FRAMES, Settings

# The rest of the package is imported where it is used: it brings torch, and a mistake on the command line should be
# told at once.


def main(arguments: Sequence[str]) -> None:
    """Run the command line.

    Raises:
        UserError: bad usage or bad input.
    """
    options = _parser().parse_args(arguments)
    settings = settings_of(options)
    from mana_dist.upscale.run_upscale import run

    run(
        options.source,
        options.destination,
        options.model,
        settings,
        options.tracking_uri,
        overwrite=options.overwrite,
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`settings_of` reads."""
    add = parser.add_argument
    defaults = ", ".join(f"{traits.crf} for {name}" for name, traits in CODECS.items() if traits.crf is not None)
    add("--codec", choices=[*CODECS], default="h264", help="ffv1 and png are lossless; with png DST is a folder of "
        "frames (default %(default)s)")  # fmt: skip
    add("--crf", type=int, help=f"quality; less is better and larger (default {defaults})")
    add("--preset", help="the encoder's speed: ultrafast to placebo, for av1 13 to 0 (default medium, 8)")
    add("--bits", type=int, choices=[8, 10], default=10, help="10 keeps 10 bits where the source has more than 8 "
        "(default %(default)s)")  # fmt: skip
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 on a GPU, else fp32")
    add("--memory", type=_memory, default="auto", metavar="MIB", help="memory for the network's activations; a frame "
        "that needs more is done in overlapping tiles. auto: half of what is free; none: never tiled "
        "(default %(default)s)")  # fmt: skip
    add("--keep-gaps", action="store_true", help="keep jumps ahead of the source's clock, and its late beginning, "
        "instead of closing them")  # fmt: skip
    add("--compare", action="store_true", help="also write DST.compare.mp4, bicubic | MANA side by side, and "
        "DST.compare.png, a still of where they differ most")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)")
    add("--threads", type=int, help="of the network on a CPU; the result depends on it by a grey level here and there "
        "(default: all cores, or OMP_NUM_THREADS)")  # fmt: skip
    add("--segment", type=int, default=SEGMENT_FRAMES, metavar="FRAMES", help="what a kill loses at most; the same "
        "command goes on after it (default %(default)s)")  # fmt: skip


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the options of :func:`add_settings` say.

    Raises:
        UserError: a value that makes no sense.
    """
    names = ("codec", "crf", "preset", "bits", "precision", "memory", "compare", "device", "segment", "threads",
        "keep_gaps")  # fmt: skip
    settings = Settings(**{name: getattr(options, name) for name in names})
    settings.check()
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m mana_dist.upscale", description="Upscale a video four times per side.")
    add = parser.add_argument
    add("source", metavar="SRC", help="a video file")
    add("destination", metavar="DST", help="the file to write: .mp4, .mov, .m4v or .mkv")
    add("--model", required=True, help="a model folder, models:/NAME/VERSION or models:/NAME@ALIAS")
    add("--overwrite", action="store_true", help="replace what is at DST, if it is not this very result")
    add_settings(parser)
    add("--tracking-uri", metavar="URI", help="MLflow, for models:/ names (default MLFLOW_TRACKING_URI, else mlflow.db "
        "in this folder)")  # fmt: skip
    return parser


def _memory(text: str) -> Any:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of MiB nor auto nor none") from None


if __name__ == "__main__":
    run_command(main)
