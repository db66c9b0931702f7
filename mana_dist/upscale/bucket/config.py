"""The command line of the upscaling on a cluster."""

from dataclasses import dataclass

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.errors import UserError
from mana_dist.upscale.config import CODECS, SEGMENT_FRAMES, Settings

_DESCRIPTION = "Upscale videos four times per side, on Ray Data; killed at any moment, the same command goes on."
_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
_MEMORY = 4096
"""A figure and no share of what is free: tiles decide a little of the pixels, and must be the same everywhere."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        sources: URIs of videos, folders of them, globs, lists of URIs.
        out: URI of the folder for the results.
        model: a model folder's URI, or a name in the registry.
        tracking_uri: of the registry; None: as in all commands.
        settings: how to upscale and write; ``device`` may be ``auto``.
        suffix: of the results; empty for folders of pictures.
        workers: copies of the model; None: as many as the cluster has room for.
        cpus: CPU cores of a copy that runs on no GPU.
        overwrite: whether results of other jobs, and other files, may be replaced.
    """

    sources: tuple[str, ...]
    out: str
    model: str
    tracking_uri: str | None
    settings: Settings
    suffix: str
    workers: int | None
    cpus: int
    overwrite: bool = False


def parse(argv: list[str]) -> Options:
    """The options that a command line gives.

    Raises:
        UserError: unknown, missing or wrong options.
    """
    values = _parser().parse_args(argv)
    if not all(values.source):  # an unset variable of a shell: the working folder is not what was meant
        raise UserError("--source: a source is empty; name a file, a folder or a list ('.' is this folder)")
    for name in ("workers", "cpus_per_worker"):
        value = getattr(values, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    settings = Settings(
        codec=values.codec,
        crf=values.crf,
        preset=values.preset,
        bits=values.bits,
        precision=values.precision,
        device=values.device,
        memory=_memory(values.memory),
        segment=values.segment,
        compare=values.compare,
        keep_gaps=values.keep_gaps,
    )
    settings.check()
    if values.codec == "png" and values.suffix:
        raise UserError("--suffix: --codec png writes folders of pictures, which have none; leave it out")
    usual = {"png": "", "ffv1": ".mkv"}.get(values.codec, ".mp4")
    return Options(
        sources=tuple(values.source),
        out=storage.resolve(values.out),
        model=values.model,
        tracking_uri=values.tracking_uri,
        settings=settings,
        suffix=values.suffix or usual,
        workers=values.workers,
        cpus=values.cpus_per_worker,
        overwrite=values.overwrite,
    )


def _memory(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal():
        raise UserError(f"--memory must be a number of MiB or none, got {text}")
    return int(text)


def _parser() -> Parser:
    parser = Parser(prog="python -m pipelines.upscale", description=_DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("--source", nargs="+", required=True, metavar="URI", help="videos, folders of them, globs; .txt, .csv lists")
    add("--out", required=True, metavar="URI", help="folder of the results, which keep the sources' relative names")
    add("--model", required=True, help="a model folder, models:/NAME/VERSION or models:/NAME@ALIAS")
    add("--overwrite", action="store_true", help="replace what lies where results go, if it is not theirs")
    add("--codec", choices=list(CODECS), default="h264", help="ffv1 and png are lossless (h264)")
    add("--suffix", choices=_SUFFIXES, help="of the results (.mp4; .mkv for ffv1)")
    add("--crf", type=int, metavar="N", help="quality, less is better and larger (h264 16, hevc 18, av1 24)")
    add("--preset", metavar="NAME", help="speed against size, as the encoder names it (medium; av1 8)")
    add("--bits", type=int, choices=[8, 10], default=10, help="10 keeps 10 bits where the source has more than 8 (10)")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 on a GPU, else fp32")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: GPUs if the cluster has any")
    memory = f"for the activations of a worker; a frame that needs more is done in tiles; none: never ({_MEMORY})"
    add("--memory", default=str(_MEMORY), metavar="MIB", help=memory)
    segment = f"frames of a unit of work, which begins at a keyframe ({SEGMENT_FRAMES})"
    add("--segment", type=int, default=SEGMENT_FRAMES, metavar="N", help=segment)
    add("--compare", action="store_true", help="also write side-by-side videos and stills: bicubic | MANA")
    gaps = "keep jumps ahead of a source's clock, and its late beginning, instead of closing them"
    add("--keep-gaps", action="store_true", help=gaps)
    add("--workers", type=int, metavar="N", help="copies of the model (one a GPU; without GPUs what the CPUs allow)")
    add("--cpus-per-worker", type=int, default=1, metavar="N", help="CPU cores of a worker without a GPU (1)")
    add("--tracking-uri", metavar="URI", help="MLflow, for models:/ names (MLFLOW_TRACKING_URI, else mlflow.db here)")
    return parser
