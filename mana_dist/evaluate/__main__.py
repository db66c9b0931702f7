"""The command ``mana evaluate``."""

from collections.abc import Sequence
from typing import Any

from mana_dist import storage
from mana_dist.arguments import Parser
from mana_dist.errors import UserError
from mana_dist.evaluate.config import EvaluationOptions
from mana_dist.model.config import SCALES


def main(arguments: Sequence[str]) -> None:
    """Run ``mana evaluate``.

    Raises:
        UserError: bad usage or bad input.
    """
    options = parse(arguments)
    options.check()
    for uri in options.data:
        if storage.is_missing(uri):
            raise UserError(f"--data {uri}: no such file or folder")
    from mana_dist.evaluate import evaluate  # brings torch: a mistake on the command line is reported before

    evaluate(options)


def parse(arguments: Sequence[str]) -> EvaluationOptions:
    """Return the options that a command line gives.

    Raises:
        UserError: unknown, missing or wrong options.
    """
    values: dict[str, Any] = vars(_parser().parse_args(arguments))
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return EvaluationOptions(**(values | lists))


def _parser() -> Parser:
    from mana_dist.data.degradation import DEGRADATIONS, find_degradation

    def degradation(text: str) -> str:
        find_degradation(text)
        return text

    parser = Parser(prog="mana evaluate", description="Measure super-resolution methods on clips.")
    inputs = parser.add_argument_group("what").add_argument
    inputs("--data", required=True, nargs="+", action="extend", metavar="URI", help="the ground truth, each a dataset: "
         "a video, a folder of frames (PNG, JPEG) or of several of either, Vid4, UDM10, REDS4, SPMCS, or "
         "Vimeo90K")  # fmt: skip
    inputs("--method", dest="methods", required=True, nargs="+", action="extend", metavar="METHOD", help="bicubic, "
         "pretrained (the model in the package), a model folder (./pretrained for one of that name), "
         "models:/NAME/VERSION, models:/NAME@ALIAS, or frames:NAME=URI for the output of any other method; LABEL=MODEL "
         "gives a model the name LABEL in tables, plots and metrics.json")  # fmt: skip
    inputs("--out", required=True, metavar="DIR", help="folder for metrics.json and the report")
    inputs("--overwrite", action="store_true", help="replace another evaluation's files in --out")
    protocol = parser.add_argument_group("protocol (the defaults are the paper's)").add_argument
    protocol(
        "--degradation",
        type=degradation,
        default="BI",
        metavar="NAME",
        help=f"by which the LR frames are made: {', '.join(DEGRADATIONS)} or a recipe's file, PATH.yaml (default "
        "%(default)s)",
    )
    protocol("--scale", type=int, choices=SCALES, default=4, help="HR side over LR side (default %(default)s)")
    protocol("--lr", choices=["made", "given", "auto"], default="auto", help="make the LR frames, use those of the "
        "dataset, or use them where it has them (default %(default)s)")  # fmt: skip
    protocol("--frames", metavar="START:STOP", default=":", help="the frames of each clip that are used (default all)")
    protocol("--frame-subset", metavar="RULE", help="those of them that are scored, while windows see all: all, "
        "inner:N (not the N at each end) or centre (default all, of Vimeo90K centre)")  # fmt: skip
    protocol("--border-crop", metavar="N", type=int, default=0, help="pixels left out along each border (default 0)")
    protocol("--padding", choices=["reflection", "replicate", "reflection_circle", "circle"], default="reflection",
        help="the rule for windows beyond a clip's ends (default %(default)s)")  # fmt: skip
    protocol("--lpips-trunk", metavar="FILE", help="AlexNet's convolutions as safetensors, where torchvision's weights "
        "cannot be downloaded")  # fmt: skip
    protocol("--top-motion", metavar="SHARE", help="report the clips with the largest motion too: 6%% as in the "
        "paper, or a number of clips")  # fmt: skip
    machine = parser.add_argument_group("where").add_argument
    machine(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where models compute (default %(default)s)"
    )
    machine("--precision", choices=["auto", "fp32", "bf16"], default="fp32", help="of the models; auto: bf16 where the "
            "processors gain by it (default %(default)s, by which numbers are the same on any machine)")  # fmt: skip
    machine("--workers", type=_workers, metavar="N", default="auto", help="processes that share the clips; the "
          "numbers are the same for any (default %(default)s)")  # fmt: skip
    mlflow = parser.add_argument_group("MLflow").add_argument
    mlflow("--tracking-uri", metavar="URI", help="log a run there, and look up models:/ names (default "
           "MLFLOW_TRACKING_URI; without it no run, and names are looked up in this folder's mlflow.db)")  # fmt: skip
    mlflow("--experiment", metavar="NAME", help="experiment of that run (default mana)")
    mlflow("--promote-if", nargs="+", action="extend", metavar="CONDITION", default=[], help='move an alias to the '
           'registered model if "psnr_rgb > @champion" holds; of several, all must')  # fmt: skip
    return parser


def _workers(text: str) -> int | None:
    if text != "auto" and not text.isdecimal():
        raise UserError(f"--workers {text}: write auto, or a number like 2")
    return None if text == "auto" else int(text)


if __name__ == "__main__":
    from mana_dist.cli import run

    run("evaluate")
