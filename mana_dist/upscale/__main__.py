"""``python -m mana_dist.upscale SRC DST --model MODEL``: a video file in, a 4x video file out."""

import argparse
import os
from collections.abc import Sequence

from mana_dist.arguments import Parser
from mana_dist.errors import UserError, run_command

# The rest of the package is imported where it is used: it brings torch, and a mistake on the command line should be
# told at once.


def main(arguments: Sequence[str]) -> None:
    """Run the command line.

    Raises:
        UserError: bad usage or bad input.
    """
    options = _parser().parse_args(arguments)
    if not 0 <= options.crf <= 51:
        raise UserError(f"--crf must be from 0 (lossless) to 51, got {options.crf}")
    if options.memory is not None and options.memory < 1:
        raise UserError(f"--memory must be at least 1 MiB, got {options.memory}")
    _upscale(options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m mana_dist.upscale", description="Upscale a video four times per side.")
    add = parser.add_argument
    add("source", metavar="SRC", help="a video file")
    add("destination", metavar="DST", help="the file to write; .mp4, .mov, .m4v or .mkv (H.264)")
    add("--model", required=True, help="a model folder, models:/NAME/VERSION or models:/NAME@ALIAS")
    add("--crf", type=int, default=16, help="x264's quality, 0 to 51; less is better and larger (default %(default)s)")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 on a GPU, else fp32")
    add("--memory", type=int, metavar="MIB", help="memory for the network's activations; a frame that needs more is "
        "done in overlapping tiles (default: never tiled)")  # fmt: skip
    add("--compare", action="store_true", help="also write DST.compare.png: source, bicubic and MANA where they differ "
        "most")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)")
    add("--tracking-uri", metavar="URI", help="MLflow, for models:/ names (default MLFLOW_TRACKING_URI, else mlflow.db "
        "in this folder)")  # fmt: skip
    return parser


def _upscale(options: argparse.Namespace) -> None:
    from functools import partial

    from mana_dist import model_folder, storage
    from mana_dist.inference import Frame, choose_device, super_resolve
    from mana_dist.progress import Progress
    from mana_dist.upscale.source import open_source
    from mana_dist.upscale.target import check_destination, open_target
    from mana_dist.upscale.transcode import Comparison, transcode

    check_destination(options.destination, options.source)
    with open_source(options.source) as source:
        device = choose_device(options.device)
        model, _ = model_folder.load(options.model, options.tracking_uri)
        progress = Progress(os.path.basename(options.destination), source.frames)
        comparison = Comparison() if options.compare else None

        def each(lr: Frame, result: Frame) -> None:
            progress.step()
            if comparison is not None:
                comparison.add(lr, result)

        lean = options.precision == "bf16" or (options.precision == "auto" and device == "cuda")
        memory = None if options.memory is None else options.memory * 2**20
        with open_target(options.destination, source, options.crf) as target:
            upscale = partial(super_resolve, model, device=device, memory=memory, precision="bf16" if lean else "fp32")
            transcode(source, target, upscale, each)
    progress.close()
    audio = f"; audio left out: {', '.join(target.dropped_audio)} does not go into this container, .mkv may take it"
    print(
        f"{options.destination}: {target.frames} frames in {progress.seconds:.1f} s "
        f"({progress.rate:.2f} frames/s on {device}){audio if target.dropped_audio else ''}"
    )
    if comparison is not None:
        picture = f"{options.destination}.compare.png"
        storage.write_bytes(picture, comparison.png())
        print(picture)


if __name__ == "__main__":
    run_command(main)
