"""``mana ingest``: the command line."""

import argparse
import sys
from collections.abc import Sequence

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.console import log
from mana_dist.data.config import SCALE, SampleSettings
from mana_dist.data.degradation import DEGRADATIONS
from mana_dist.errors import UserError
from mana_dist.ingest.config import IngestOptions

_DESCRIPTION = "Videos and folders of frames into sharded training samples, on Ray Data."


def main(arguments: Sequence[str]) -> None:
    """Run ``mana ingest``.

    Raises:
        UserError: bad usage or bad input.
    """
    values = _parser().parse_args(arguments)
    if values.verify:
        if len(arguments) > (1 if "=" in arguments[0] else 2):
            raise UserError("--verify checks a finished dataset and takes no other option: --verify URI")
        _verify(storage.resolve(values.verify))
        return
    options = _options(values)
    from mana_dist.ingest.run_ingest import dry_run, ingest  # a mistake on the command line is answered before

    if values.dry_run:
        dry_run(options)
    else:
        ingest(options)


def parse(arguments: Sequence[str]) -> IngestOptions:
    """Return the options that a command line gives.

    Raises:
        UserError: unknown, missing or wrong options.
    """
    return _options(_parser().parse_args(arguments))


def _options(values: argparse.Namespace) -> IngestOptions:
    for name in ("source", "out"):
        if not getattr(values, name):
            raise UserError(f"--{name} is missing; see mana ingest --help")
    settings = SampleSettings(
        degradation=DEGRADATIONS[values.degradation],
        frames_per_sample=values.frames_per_sample,
        stride=values.stride,
        patch=values.patch,
        detect_cuts=not values.keep_cuts,
        min_change=values.min_change,
        min_detail=values.min_detail,
    )
    return IngestOptions(
        sources=tuple(values.source),
        out=values.out,
        settings=settings,
        frames=values.frames,
        downscale=values.downscale,
        segment_frames=values.segment_frames,
        overwrite=values.overwrite,
    ).checked()


def _verify(uri: str) -> None:
    from mana_dist.ingest.verify import verify

    problems = verify(uri)
    for problem in problems[1:]:
        print(problem, file=sys.stderr)
    if problems:
        raise UserError(problems[0])
    log.info(f"{uri}: whole")


def _parser() -> Parser:
    parser = Parser(prog="mana ingest", description=_DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("--source", nargs="+", metavar="URI", help="videos, frame folders, folders of them, globs; .txt, .csv lists")
    add("--out", metavar="URI", help="folder of the dataset")
    add("--degradation", choices=list(DEGRADATIONS), default="BI", help="how LR is made")
    add("--frames", default=":", metavar="START:STOP", help="the frames to use of every source")
    add("--frames-per-sample", type=int, default=7, metavar="T", help="LR frames per sample, odd (7)")
    add("--stride", type=int, default=1, metavar="N", help="at most one sample per N frames (1)")
    add("--downscale", type=int, default=1, metavar="N", help="shrink frames by N first: hides compression noise (1)")
    patch = f"cut samples into patches of P x P LR pixels ({SCALE}P x {SCALE}P HR): cheap crops of large frames (0: no)"
    add("--patch", type=int, default=0, metavar="P", help=patch)
    add("--min-change", type=float, default=0.5, metavar="X", help="grey levels below which a frame repeats (0.5)")
    add("--min-detail", type=float, default=0.25, metavar="X", help="least detail of a sample, grey levels (0.25)")
    add("--keep-cuts", action="store_true", help="do not look for shot cuts (when every source is one shot)")
    add(
        "--segment-frames",
        type=int,
        default=1000,
        metavar="N",
        help="long videos are split into N frames a task (1000)",
    )
    add("--overwrite", action="store_true", help="replace the dataset at --out, whatever made it")
    add("--dry-run", action="store_true", help="tell what would be done, from headers alone")
    add("--verify", metavar="URI", help="check a finished dataset against its manifest")
    return parser


if __name__ == "__main__":
    from mana_dist.cli import run

    run("ingest")
