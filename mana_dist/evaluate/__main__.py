"""``python -m mana_dist.evaluate``: methods against the ground truth, every choice beside every number."""

import argparse
from collections.abc import Sequence

from mana_dist.arguments import Parser
from mana_dist.errors import run_command

# The rest of the package is imported where it is used: it brings torch, and a mistake on the command line should be
# told at once.


def main(arguments: Sequence[str]) -> None:
    """Run the command line.

    Raises:
        UserError: bad usage or bad input.
    """
    options = _parser().parse_args(arguments)
    _evaluate(options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m mana_dist.evaluate", description="Measure super-resolution methods on clips.")
    add = parser.add_argument
    add("--data", required=True, nargs="+", metavar="URI", help="the ground truth: videos, folders of frames (PNG, "
        "JPEG), or folders that hold several of either")  # fmt: skip
    add("--method", required=True, nargs="+", metavar="METHOD", help="bicubic, a model folder, models:/NAME/VERSION or "
        "models:/NAME@ALIAS")  # fmt: skip
    add("--out", required=True, metavar="DIR", help="folder for metrics.json, report.md and side_by_side.png")
    add("--degradation", choices=["BI", "BD"], default="BI", help="how LR is made (default %(default)s)")
    add("--frames", metavar="START:STOP", default=":", help="which frames of each clip (default all)")
    add("--lpips-trunk", metavar="FILE", help="AlexNet's convolutions as safetensors, where torchvision's weights "
        "cannot be downloaded")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)")
    add("--tracking-uri", metavar="URI", help="MLflow, for models:/ names (default MLFLOW_TRACKING_URI, else mlflow.db "
        "in this folder)")  # fmt: skip
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    from mana_dist import __version__, storage
    from mana_dist.data.degradation import Degradation
    from mana_dist.data.video import parse_frame_range
    from mana_dist.evaluate import report
    from mana_dist.evaluate.clips import find_clips
    from mana_dist.evaluate.methods import load_methods
    from mana_dist.evaluate.protocol import Protocol
    from mana_dist.evaluate.scoring import Example, score_clip
    from mana_dist.inference import choose_device
    from mana_dist.metrics.lpips import Lpips, load_lpips
    from mana_dist.model import Padding
    from mana_dist.progress import Progress

    padding: Padding = "reflection"
    device = choose_device(options.device)
    start, stop = parse_frame_range(options.frames)
    clips = find_clips(options.data, start, stop)
    methods = load_methods(options.method, device, padding, options.tracking_uri)
    storage.check_writable(options.out, "--out")
    lpips = load_lpips(options.lpips_trunk, device)
    degradation = Degradation(options.degradation)
    protocol = Protocol(
        data=list(options.data),
        degradation=degradation.name,
        degradation_version=degradation.version,
        frames="all" if options.frames == ":" else options.frames,
        lpips=f"v0.1 AlexNet, trunk {lpips.source}" if isinstance(lpips, Lpips) else f"not available: {lpips.reason}",
        padding=padding,
        device=device,
        mana_dist=__version__,
    )

    results = [report.MethodResult(method.name, [], []) for method in methods]
    examples: list[Example] = []
    for number, clip in enumerate(clips, 1):
        progress = Progress(f"clip {number}/{len(clips)} {clip.name}", clip.length)
        distance = lpips if isinstance(lpips, Lpips) else None
        scores, example = score_clip(clip, methods, degradation, distance, progress.step)
        progress.close()
        for result, score in zip(results, scores, strict=True):
            result.clips.append(clip.name)
            result.scores.append(score)
        examples.append(example)
        print(
            f"clip {number}/{len(clips)} {clip.name}: {progress.count} frames, {progress.rate:.2f} frames/s", flush=True
        )
    shown = sorted(examples, key=lambda example: -example.region.difference)[: report.ROWS_SHOWN]
    files = report.publish(options.out, protocol, results, shown)
    print(f"\n{report.table(results)}\n")
    if not isinstance(lpips, Lpips):
        print(f"LPIPS {protocol.lpips}\n")
    print("\n".join(files))


if __name__ == "__main__":
    run_command(main)
