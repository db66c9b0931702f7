"""``mana serve --page``: the page alone, on this machine, without Ray."""

import socket
from typing import Any

from starlette.applications import Starlette

from mana_dist.console import log
from mana_dist.errors import UserError, terminable
from mana_dist.registry.tracking_uri import resolve_tracking_uri
from mana_dist.serve.config import ServeOptions
from mana_dist.serve.web_page.offered_models import fixed, offered, wanted_models
from mana_dist.serve.web_page.page_service import PageService, in_threads
from mana_dist.serve.web_page.routes import PageBackend, routes

_END_SECONDS = 3  # that requests get to end


def serve_page(options: ServeOptions, host: str, port: int) -> None:
    """Serve the page until a signal ends it; then everything is deleted.

    Raises:
        UserError: nobody can listen there, or the registry has no such model.
    """
    import uvicorn

    tracking_uri = resolve_tracking_uri(options.tracking_uri)
    models = offered(fixed(name, tracking_uri) for name in wanted_models(options))
    options = options.model_copy(update={"tracking_uri": tracking_uri})
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: cannot be listened at ({error}); name others") from error
    settings: dict[str, Any] = {"device": options.device, "precision": options.precision}
    if "cpus" in options.model_fields_set:
        settings["threads"] = options.cpus
    if "memory" in options.model_fields_set:
        settings["memory"] = options.memory
    with listening, terminable(), PageService(options, models, settings).start_threads() as service:
        backend = PageBackend(in_threads(service), options.page_client_header)
        config = uvicorn.Config(
            Starlette(routes=routes(lambda: backend)),
            log_level="warning",
            proxy_headers=False,  # the options say which header counts
            timeout_graceful_shutdown=_END_SECONDS,
        )
        shown = f"[{host}]" if ":" in host else host
        log.info(f"the page is at http://{shown}:{listening.getsockname()[1]}; Ctrl-C ends it")
        uvicorn.Server(config).run([listening])
