"""``mana serve [--model MODEL]``: the app on this machine, or on the cluster that ``RAY_ADDRESS`` names."""

import argparse
import threading
from collections.abc import Sequence

from docstring_parser import parse as parse_docstring
from pydantic import ValidationError

from mana_dist.arguments import Parser
from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.registry import pretrained
from mana_dist.registry.names import check_model_folder
from mana_dist.serve.config import ServeOptions
from mana_dist.serve.web_page.offered_models import wanted_models

_OF_THE_APP = ("replicas", "max_batch", "batch_wait", "max_queued", "max_request")


def main(arguments: Sequence[str]) -> None:
    """Run ``mana serve`` until a signal ends it.

    Raises:
        UserError: bad usage, or no such model.
    """
    values = vars(_parser().parse_args(arguments))
    host, port = values.pop("host"), values.pop("port")
    try:
        options = ServeOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}, got {first['input']}") from error
    wrong = [name for name in options.model_fields_set if _is_unused(name, options.page)]
    if wrong:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(wrong))
        raise UserError(f"{named}: {'not with' if options.page else 'only with'} --page")
    for name in wanted_models(options):
        check_model_folder(name)
    if options.page:
        from mana_dist.serve.web_page.local_server import serve_page

        serve_page(options, host, port)
        return
    pretrained.announce(options.model)
    from mana_dist import ray_runtime

    ray_runtime.start_ray(cpus=options.cpus * options.replicas + 1)
    import ray
    from ray import serve

    from mana_dist.serve.application import build

    try:
        application = build(options)
        serve.start(http_options={"host": host, "port": port})
        serve.run(application)
        log.info(f"serving {options.model} at http://{host}:{port}; Ctrl-C ends it")
        threading.Event().wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _is_unused(name: str, page: bool) -> bool:
    """Return whether the page alone, or the app without a page, has no use for an option."""
    return name in _OF_THE_APP if page else name.startswith("page_")


def _parser() -> Parser:
    parser = Parser(prog="mana serve", description="Answer HTTP requests with a model (see docs/serving.md).")
    described = {entry.arg_name: entry.description for entry in parse_docstring(str(ServeOptions.__doc__)).params}
    for name, field in ServeOptions.model_fields.items():
        if field.annotation is bool:
            helped = str(described[name])
            parser.add_argument(
                f"--{name.replace('_', '-')}", action="store_true", default=argparse.SUPPRESS, help=helped
            )
            continue
        default = "" if field.is_required() or field.default is None else f" (default {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            required=field.is_required(),
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=f"{' '.join(str(described[name]).split())}{default}".replace("%", "%%"),
        )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="(default %(default)s)")
    return parser


if __name__ == "__main__":
    from mana_dist.cli import run

    run("serve")
