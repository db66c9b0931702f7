"""``mana upscale SRC DST``, or ``--source URI ... --out URI`` for many videos on a cluster."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from fractions import Fraction

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.errors import UserError
from mana_dist.model_names import PRETRAINED
from mana_dist.registry.names import check_model_folder
from mana_dist.upscale.bucket.config import MEMORY, SUFFIXES, BucketOptions
from mana_dist.upscale.config import ALL_FRAMES, CODECS, PICTURES_PER_SECOND, SEGMENT_FRAMES, MemoryLimit, Settings

# The rest of the package is imported where it is used: it brings torch, and a mistake on the command line should be
# answered at once.


def main(arguments: Sequence[str]) -> None:
    """Run ``mana upscale``.

    Raises:
        UserError: bad usage or bad input.
    """
    values = _parser().parse_args(arguments)
    if values.source or values.out:
        options = _bucket_options(values)
        from mana_dist.upscale.bucket.run_bucket import upscale_all

        upscale_all(options)
        return
    for name, value in (("SRC", values.src), ("DST", values.dst)):
        if value is None:
            raise UserError(f"{name} is missing; see mana upscale --help")
    for name in ("suffix", "workers", "cpus_per_worker"):
        if getattr(values, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} goes with --source and --out; leave it out")
    settings = _settings(values)
    settings.check()
    if storage.is_missing(values.src):
        raise UserError(f"{values.src}: no such file or folder")
    check_model_folder(values.model)
    from mana_dist.upscale import upscale

    upscale(values.src, values.dst, values.model, settings, values.tracking_uri, overwrite=values.overwrite)


def _bucket_options(values: argparse.Namespace) -> BucketOptions:
    for name in ("source", "out"):
        if not getattr(values, name):
            raise UserError(f"--{name} is missing; see mana upscale --help")
    if values.src is not None:
        raise UserError(f"{values.src}: give SRC and DST, or --source and --out, not both")
    return BucketOptions(
        sources=tuple(values.source),
        out=values.out,
        model=values.model,
        tracking_uri=values.tracking_uri,
        settings=_settings(values),
        suffix=values.suffix,
        workers=values.workers,
        cpus=1 if values.cpus_per_worker is None else values.cpus_per_worker,
        overwrite=values.overwrite,
    ).checked()


def _settings(values: argparse.Namespace) -> Settings:
    return Settings(**{setting.name: getattr(values, setting.name) for setting in fields(Settings)})


def _parser() -> Parser:
    parser = Parser(
        prog="mana upscale",
        usage="mana upscale SRC DST [OPTIONS]\n       mana upscale --source URI [URI ...] --out URI [OPTIONS]",
        description="Upscale a video four times per side (by a model of scale 4), or many on a Ray cluster. Killed "
        "at any moment, the same command goes on.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    defaults = ", ".join(f"{traits.crf} for {name}" for name, traits in CODECS.items() if traits.crf is not None)
    add("src", nargs="?", metavar="SRC", help="a video file, or a folder of PNG or JPEG frames")
    add("dst", nargs="?", metavar="DST", help="the file to write: .mp4, .mov, .m4v or .mkv; with --codec png a folder")
    add("--model", default=PRETRAINED, help="pretrained, the model in the package; a model folder (./pretrained for "
        "one of that name); models:/NAME/VERSION or models:/NAME@ALIAS (default %(default)s)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace what is there, if it is not this very result")
    add("--codec", choices=[*CODECS], default="h264", help="ffv1 and png are lossless (default %(default)s)")
    add("--crf", type=int, help=f"quality; less is better and larger (default {defaults})")
    add("--preset", help="the encoder's speed: ultrafast to placebo, for av1 13 to 0 (default medium, 8)")
    add("--bits", type=int, choices=[8, 10], default=10, help="10 keeps 10 bits where the source has more than 8 "
        "(default %(default)s)")  # fmt: skip
    add(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="auto: bf16 where the processor gains by it, else fp32 (default %(default)s)",
    )
    add("--memory", type=_memory, default="auto", metavar="MIB", help="memory for the network's activations; a frame "
        f"that needs more is done in overlapping tiles. auto: half of what is free, on a cluster {MEMORY}; none: never "
        "tiled (default %(default)s)")  # fmt: skip
    add("--frames", metavar="START:STOP", default=ALL_FRAMES, help="the frames that are upscaled, STOP excluded; the "
        "result begins at 0 with the first, without sound (default all)")  # fmt: skip
    add("--fps", type=_rate, metavar="RATE", help="frames per second of a folder of pictures: 24, 23.976, 24000/1001 "
        f"(default {PICTURES_PER_SECOND})")  # fmt: skip
    add("--keep-gaps", action="store_true", help="keep jumps ahead of the source's clock, and its late beginning, "
        "instead of closing them")  # fmt: skip
    add("--compare", action="store_true", help="also write DST.compare.mp4, bicubic | MANA side by side, and "
        "DST.compare.png, a still of where they differ most")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)")
    add("--threads", type=int, help="of the network on a CPU; the result depends on it by a grey level here and there "
        "(default: all cores, or OMP_NUM_THREADS)")  # fmt: skip
    add("--segment", type=int, default=SEGMENT_FRAMES, metavar="FRAMES", help="what a kill loses at most; the same "
        "command goes on after it (default %(default)s)")  # fmt: skip
    add("--tracking-uri", metavar="URI", help="MLflow, for models:/ names (default MLFLOW_TRACKING_URI, else mlflow.db "
        "in this folder)")  # fmt: skip
    many = parser.add_argument_group("many videos").add_argument
    many("--source", nargs="+", metavar="URI", help="videos, folders of them, globs; .txt, .csv lists")
    many("--out", metavar="URI", help="folder of the results, which keep the sources' relative names")
    many("--suffix", choices=SUFFIXES, help="of the results (default .mp4; .mkv for ffv1)")
    many("--workers", type=int, metavar="N", help="copies of the model (default one a GPU; without GPUs what the CPUs "
         "allow)")  # fmt: skip
    many("--cpus-per-worker", type=int, metavar="N", help="CPU cores of a worker without a GPU (default 1)")
    return parser


def _memory(text: str) -> MemoryLimit:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of MiB nor auto nor none") from None


def _rate(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; write 24, 23.976 or 24000/1001") from None


if __name__ == "__main__":
    from mana_dist.cli import run

    run("upscale")
