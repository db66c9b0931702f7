"""``mana ingest``: the command line."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.console import log
from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import DEGRADATIONS, find_degradation
from mana_dist.errors import UserError, one_line
from mana_dist.ingest.config import IngestOptions
from mana_dist.model.config import SCALES

_DESCRIPTION = "Videos and folders of frames into sharded training samples, on Ray Data."


def main(arguments: Sequence[str]) -> None:
    """Run ``mana ingest``.

    Raises:
        UserError: bad usage or bad input.
    """
    values = _parser().parse_args(arguments)
    for name, does, run in (("verify", "checks", _verify), ("report", "shows", _report)):
        if uri := getattr(values, name):
            if len(arguments) > (1 if "=" in arguments[0] else 2):
                raise UserError(f"--{name} {does} a finished dataset and takes no other option: --{name} URI")
            run(storage.resolve(uri))
            return
    options = _options(values)
    from mana_dist.ingest.run_ingest import dry_run, ingest  # a mistake on the command line is answered before

    if values.dry_run:
        dry_run(options)
    else:
        ingest(options)


def _options(values: argparse.Namespace) -> IngestOptions:
    for name in ("source", "out"):
        if not getattr(values, name):
            raise UserError(f"--{name} is missing; see mana ingest --help")
    by_hand = ("degradation", "detect_cuts")
    names = [field.name for field in dataclasses.fields(SampleSettings) if field.name not in by_hand]
    numbers = {name: getattr(values, name) for name in names}
    settings = SampleSettings(degradation=values.degradation, detect_cuts=not values.keep_cuts, **numbers)
    others = ("out", "frames", "downscale", "segment_frames", "hold_out", "pairs", "overwrite")
    rest = {name: getattr(values, name) for name in others}
    return IngestOptions(sources=tuple(values.source), settings=settings, **rest).checked()


def _verify(uri: str) -> None:
    from mana_dist.ingest.verify import verify

    problems = verify(uri)
    for problem in problems[1:]:
        print(problem, file=sys.stderr)
    if problems:
        raise UserError(problems[0])
    log.info(f"{uri}: whole")


def _report(uri: str) -> None:
    from mana_dist.ingest import dataset_page

    try:
        log.info(dataset_page.write(uri))
    except OSError as error:
        raise UserError(f"{uri}: its report cannot be written ({one_line(error)})") from error


def _parser() -> Parser:
    parser = Parser(prog="mana ingest", description=_DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("--source", nargs="+", metavar="URI", help="videos, frame folders, folders of them, globs; .txt, .csv lists")
    add("--out", metavar="URI", help="folder of the dataset")
    samples = SampleSettings()
    made = f"how LR is made: {', '.join(DEGRADATIONS)} or a recipe's file, PATH.yaml (%(default)s)"
    add("--degradation", type=find_degradation, default=samples.degradation.name, metavar="NAME", help=made)
    add("--scale", type=int, choices=SCALES, default=samples.scale, help="HR side over LR side (%(default)s)")
    given = "the sources are HR frames with their LR frames: trees (HR, LR; GT, BIx4), tables with columns hr,lr"
    add("--pairs", action="store_true", help=given)
    add("--frames", default=IngestOptions.frames, metavar="START:STOP", help="the frames to use of every source")
    per_sample = "LR frames per sample, odd (%(default)s)"
    add("--frames-per-sample", type=int, default=samples.frames_per_sample, metavar="T", help=per_sample)
    add("--stride", type=int, default=samples.stride, metavar="N", help="at most one sample per N frames (%(default)s)")
    shrink = "shrink frames by N first: hides compression noise (%(default)s)"
    add("--downscale", type=int, default=IngestOptions.downscale, metavar="N", help=shrink)
    patch = "cut samples into patches of P x P LR pixels: cheap crops of large frames (0: no)"
    add("--patch", type=int, default=samples.patch, metavar="P", help=patch)
    change, detail = "grey levels below which a frame repeats", "least detail of a sample, grey levels"
    add("--min-change", type=float, default=samples.min_change, metavar="X", help=f"{change} (%(default)s)")
    add("--min-detail", type=float, default=samples.min_detail, metavar="X", help=f"{detail} (%(default)s)")
    pace = "samples that move less on average, LR pixels a frame, are left out"
    add("--min-motion", type=float, default=samples.min_motion, metavar="X", help=f"{pace} (%(default)s)")
    add("--max-motion", type=float, metavar="X", help="so are those that move more")
    copies = "leave clips out whose frames are in one before them, in another size, coding or cut"
    add("--drop-near-duplicates", action="store_true", help=copies)
    blocky = "leave clips out that show blocks of compression (1: none; 1.3: visible ones)"
    add("--max-blockiness", type=float, metavar="X", help=blocky)
    add("--max-blur", type=float, metavar="X", help="leave blurred clips out (0: sharp, 1: nothing but blur)")
    add("--keep-cuts", action="store_true", help="do not look for shot cuts (when every source is one shot)")
    segment = "long videos are split into N frames a task (%(default)s)"
    add("--segment-frames", type=int, default=IngestOptions.segment_frames, metavar="N", help=segment)
    held = "put that share or number of the clips into OUT-held-out instead, to validate on: 5%%, or 4"
    add("--hold-out", metavar="N", help=held)
    add("--overwrite", action="store_true", help="replace the dataset at --out, whatever made it")
    add("--dry-run", action="store_true", help="tell what would be done, from headers alone")
    add("--verify", metavar="URI", help="check a finished dataset against its manifest")
    page = "write a page on a finished dataset into its folder: pictures, histograms, and what was left out and why"
    add("--report", metavar="URI", help=page)
    return parser


if __name__ == "__main__":
    from mana_dist.cli import run

    run("ingest")
