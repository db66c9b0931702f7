"""``mana serve --page``: the page alone, on this machine, without Ray."""

from typing import Any

from starlette.applications import Starlette

from mana_dist.console import log
from mana_dist.errors import terminable
from mana_dist.serve.config import ServeOptions
from mana_dist.serve.page.desk import Desk, in_threads
from mana_dist.serve.page.offered_models import offered, wanted_models
from mana_dist.serve.page.routes import Door, routes

_END_SECONDS = 3  # that requests get to end


def serve_page(options: ServeOptions, host: str, port: int) -> None:
    """Serve the page until a signal ends it; then everything is deleted."""
    import uvicorn

    settings: dict[str, Any] = {"device": options.device, "precision": options.precision}
    if "cpus" in options.model_fields_set:
        settings["threads"] = options.cpus
    with terminable(), Desk(options, offered(wanted_models(options)), settings).start_threads() as desk:
        door = Door(in_threads(desk), options.page_client_header)
        app = Starlette(routes=routes(lambda: door))
        log.info(f"the page is at http://{host}:{port}; Ctrl-C ends it")
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_level="warning",
            proxy_headers=False,  # the options say which header counts
            timeout_graceful_shutdown=_END_SECONDS,
        )
