"""The ingest's command line."""

from dataclasses import dataclass

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.data.config import MIN_LR_SIDE, SCALE, SampleSettings
from mana_dist.data.degradation import DEGRADATIONS
from mana_dist.errors import UserError
from mana_dist.video.frame_folders import parse_frame_range

_DESCRIPTION = "Videos and folders of frames into sharded training samples, on Ray Data."


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        sources: what to ingest: URIs of videos, frame folders, folders of either, globs, lists of URIs.
        out: URI of the dataset's folder.
        settings: how samples are made.
        start: first frame to use of every source that has no range of its own.
        stop: first frame not to use any more; None for the end.
        downscale: what to shrink frames by before they are taken as HR.
        segment_frames: least frames of a long video that make a task.
        overwrite: whether a dataset made with other settings may be replaced.
        dry_run: whether to tell only what would be done.
    """

    sources: tuple[str, ...]
    out: str
    settings: SampleSettings
    start: int
    stop: int | None
    downscale: int
    segment_frames: int
    overwrite: bool
    dry_run: bool


@dataclass(frozen=True)
class Verify:
    """``--verify URI``: the dataset to check."""

    uri: str


def parse(argv: list[str]) -> Options | Verify:
    """The options that a command line gives.

    Raises:
        UserError: unknown, missing or wrong options.
    """
    values = _parser().parse_args(argv)
    if values.verify:
        if len(argv) > (1 if "=" in argv[0] else 2):
            raise UserError("--verify checks a finished dataset and takes no other option: --verify URI")
        return Verify(storage.resolve(values.verify))
    for name in ("source", "out"):
        if not getattr(values, name):
            raise UserError(f"--{name} is missing; see python -m pipelines.ingest --help")
    if not all(values.source):  # an unset variable of a shell: the working folder is not what was meant
        raise UserError("--source: a source is empty; name a file, a folder or a list ('.' is this folder)")
    start, stop = parse_frame_range(values.frames)
    _check_numbers(vars(values))
    settings = SampleSettings(
        degradation=DEGRADATIONS[values.degradation],
        frames_per_sample=values.frames_per_sample,
        stride=values.stride,
        patch=values.patch,
        detect_cuts=not values.keep_cuts,
        min_change=values.min_change,
        min_detail=values.min_detail,
    )
    return Options(
        sources=tuple(values.source),
        out=storage.resolve(values.out),
        settings=settings,
        start=start,
        stop=stop,
        downscale=values.downscale,
        segment_frames=values.segment_frames,
        overwrite=values.overwrite,
        dry_run=values.dry_run,
    )


def _check_numbers(values: dict[str, float]) -> None:
    if values["frames_per_sample"] < 1 or values["frames_per_sample"] % 2 == 0:
        raise UserError(f"--frames-per-sample must be an odd number, got {values['frames_per_sample']}")
    if 0 < values["patch"] < MIN_LR_SIDE:
        raise UserError(f"--patch must be 0 or at least {MIN_LR_SIDE}, got {values['patch']}")
    least = {"stride": 1, "downscale": 1, "segment_frames": 16, "min_change": 0, "min_detail": 0, "patch": 0}
    for name, minimum in least.items():
        if not values[name] >= minimum:
            raise UserError(f"--{name.replace('_', '-')} must be at least {minimum}, got {values[name]}")


def _parser() -> Parser:
    parser = Parser(prog="python -m pipelines.ingest", description=_DESCRIPTION, allow_abbrev=False)
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
