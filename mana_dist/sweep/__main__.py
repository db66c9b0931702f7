"""The command ``mana sweep memory|window|alignment``: a few options, and every key of ``mana train``."""

import argparse
from collections.abc import Sequence

from mana_dist import config as configuration
from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.model.alignment_names import NAMES
from mana_dist.sweep.variations import FRAMES, SLOTS, WINDOWS, Sweep, alignment_sweep, memory_sweep, window_sweep

# The rest of the package is imported where it is used: it brings torch, and a mistake on the command line should be
# reported at once.


def main(arguments: Sequence[str]) -> None:
    """Run the sweep that the first argument names.

    Raises:
        UserError: bad usage or bad input.
    """
    sweeps = {"memory": _memory, "window": _window, "alignment": _alignment}
    parser = Parser(prog="mana sweep", description="Train one model per setting, and compare them.")
    parser.add_argument("sweep", choices=sweeps, help="what is varied: mana sweep memory --help says more")
    sweeps[parser.parse_args(arguments[:1]).sweep](arguments[1:])


def _memory(arguments: Sequence[str]) -> None:
    parser = _parser("memory", "Train MANA with several numbers of memory slots, and compare (Table 3).")
    parser.add_argument("--slots", nargs="+", metavar="N", type=_slots, default=list(SLOTS), help="numbers of memory "
        "slots, or none (default none 128 256 512 1024)")  # fmt: skip
    options, keys = parser.parse_known_args(arguments)
    config = configuration.parse(keys, prog="mana sweep memory")
    if not (config.schedule.stage2.steps or config.schedule.stage3.steps):
        raise UserError("schedule: stage 1 alone does not train the memory; give stage 2 and stage 3 steps")
    _run(config, memory_sweep(config, options.slots), options)


def _window(arguments: Sequence[str]) -> None:
    parser = _parser("window", "Train MANA with several search windows and numbers of frames, and compare.")
    parser.add_argument("--windows", nargs="+", metavar="SIDE", type=int, default=list(WINDOWS), help="sides, at the "
        "configuration's number of frames (default 5 7 9 11 13)")  # fmt: skip
    parser.add_argument("--lengths", nargs="+", metavar="T", type=int, default=list(FRAMES), help="numbers of frames, "
        "at the configuration's window (default 3 5 7)")  # fmt: skip
    parser.add_argument("--grid", action="store_true", help="every window with every number of frames")
    options, keys = parser.parse_known_args(arguments)
    config = configuration.parse(keys, prog="mana sweep window")
    _run(config, window_sweep(config, options.windows, options.lengths, grid=options.grid), options)


def _alignment(arguments: Sequence[str]) -> None:
    parser = _parser("alignment", "Train MANA with several kinds of alignment of neighbour frames, and compare.")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", default=list(NAMES), help="values of "
        f"model.attention (default {' '.join(NAMES)}); none is the network of a single frame")  # fmt: skip
    options, keys = parser.parse_known_args(arguments)
    config = configuration.parse(keys, prog="mana sweep alignment")
    _run(config, alignment_sweep(config, options.kinds), options)


def _run(config: Config, sweep: Sweep, options: argparse.Namespace) -> None:
    for name in ("samples", "concurrent"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: give a number from 1 on")
    from mana_dist.sweep.config import Judging, Options
    from mana_dist.sweep.run_sweep import run

    judging = Judging(
        data=tuple(storage.resolve(uri) for uri in options.evaluate_on),
        frames=options.evaluate_frames,
        lpips_trunk=storage.resolve(options.lpips_trunk) if options.lpips_trunk else None,
    )
    run(config, sweep, Options(samples=options.samples, judging=judging, at_once=options.concurrent, asha=options.asha))


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"mana sweep {name}",
        description=description,
        epilog="All else is as for `mana train`: --config PRESET|FILE.yaml, --key.path VALUE. "
        "run.name names the sweep; the same again goes on with it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--evaluate-on", required=True, nargs="+", metavar="URI", help="the ground truth that finished models are "
        "compared on, each a dataset (as mana evaluate --data)")  # fmt: skip
    add("--evaluate-frames", default=":", metavar="START:STOP", help="which frames of each clip (default all)")
    add("--lpips-trunk", metavar="FILE", help="as for mana evaluate")
    add("--samples", type=int, default=1, metavar="N", help="seeds per setting, from run.seed on (default 1)")
    add("--concurrent", type=int, metavar="N", help="most trials at a time (default as many as there is room for)")
    add("--asha", action="store_true", help="stop trials early that validate worse than half of the others")
    return parser


def _slots(text: str) -> int:
    if text != "none" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: write a number, or none")
    return 0 if text == "none" else int(text)


if __name__ == "__main__":
    from mana_dist.cli import run

    run("sweep")
