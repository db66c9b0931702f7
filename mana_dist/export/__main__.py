"""``mana export [MODEL] OUT --to onnx|torch-export``: a model as a file for other runtimes."""

from collections.abc import Sequence

from mana_dist.arguments import Parser
from mana_dist.export.config import FORMATS
from mana_dist.model_names import PRETRAINED
from mana_dist.registry.names import check_model_folder


def main(arguments: Sequence[str]) -> None:
    """Run ``mana export``.

    Raises:
        UserError: bad usage or bad input.
    """
    parser = Parser(
        prog="mana export",
        description="Write a model as a file that upscales one window of frames of any size in other runtimes, "
        "checked against the network (see docs/export.md).",
    )
    add = parser.add_argument
    add("model", nargs="?", default=PRETRAINED, metavar="MODEL", help="pretrained, a model folder, "
        "models:/NAME/VERSION or models:/NAME@ALIAS (default %(default)s)")  # fmt: skip
    add("out", metavar="OUT", help=f"the file to write: {', '.join(FORMATS.values())}")
    add("--to", choices=[*FORMATS], default="onnx", help="(default %(default)s)")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--tracking-uri", metavar="URI", help="MLflow, for models:/ names (default MLFLOW_TRACKING_URI, else mlflow.db "
        "in this folder)")  # fmt: skip
    values = parser.parse_args(arguments)
    check_model_folder(values.model)
    from mana_dist.export import export

    export(values.model, values.out, values.to, values.tracking_uri, overwrite=values.overwrite)


if __name__ == "__main__":
    from mana_dist.cli import run

    run("export")
