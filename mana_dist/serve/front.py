"""The HTTP front of the Serve app: reads and checks requests, hands windows on, answers with pictures."""

import asyncio
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

import mana_dist
from mana_dist.errors import one_line
from mana_dist.serve.web_page.routes import PageBackend, routes
from mana_dist.serve.windows import ARRAY_TYPES, FIELD, MULTIPART, REASON, Limits, RefusedError, read_window, to_png

UPSCALER = "Upscaler"
"""The deployment that the front asks."""
BODIES = 8
"""Bodies that are read and decoded at a time; others wait unread, and take no memory."""
BODY_SECONDS = 60.0
"""For one of them to come: a client that falls silent must not keep others out."""

# Without FastAPI's pages for the API, which fetch their scripts from elsewhere.
api = FastAPI(title="MANA", version=mana_dist.__version__, docs_url=None, redoc_url=None)

_BODY = {
    MULTIPART: {
        "schema": {
            "type": "object",
            "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
    ARRAY_TYPES[0]: {"schema": {"type": "string", "format": "binary"}},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}, "description": "The upscaled middle frame"},
    400: {"description": "The body is not what its content type says"},
    413: {"description": "Body or frames too large"},
    408: {"description": "The body did not come in time"},
    415: {"description": "Neither a form nor an array"},
    422: {"description": "Not a window for this model"},
    500: {"description": "The model failed on this window"},
    503: {"description": "Too many requests wait; try again later"},
}


# Before the class: Serve pickles it, with what stands in this module by then, where it is made.
def _running_replicas() -> int:
    """Return how many replicas of the model in this app are running."""
    name = serve.get_replica_context().app_name
    deployments = serve.status().applications[name].deployments
    return int(deployments[UPSCALER].replica_states.get("RUNNING", 0)) if UPSCALER in deployments else 0


def _refusal(status: HTTPStatus, reason: str) -> Response:
    headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse({"detail": reason}, status, headers)


def _backend() -> PageBackend | None:
    backend: PageBackend | None = serve.get_replica_context().servable_object.backend
    return backend


api.router.routes.extend(routes(_backend))


@serve.deployment(name="Api")
@serve.ingress(api)
class Api:
    """Requests in, pictures out."""

    def __init__(
        self,
        upscaler: DeploymentHandle,
        limits: Limits,
        model: str,
        service: DeploymentHandle | None = None,
        client_header: str | None = None,
    ) -> None:
        """Keep the model's replicas and what a request must keep to.

        Args:
            upscaler: the model's replicas.
            limits: of a window.
            model: shown with the health.
            service: the page's, which is the :class:`mana_dist.serve.application.PageReplica`; None: there is no page.
            client_header: as :attr:`mana_dist.serve.web_page.routes.PageBackend.client_header`.
        """
        self.backend = None if service is None else PageBackend(service.call.remote, client_header)
        self._upscaler = upscaler
        self._limits = limits
        self._model = model
        self._bodies = asyncio.Semaphore(BODIES)

    @api.post(
        "/upscale", response_class=Response, responses=_ANSWERS,
        openapi_extra={"requestBody": {"required": True, "content": _BODY}},
    )  # fmt: skip
    async def upscale(self, request: Request) -> Response:
        """Upscale the middle frame of a window of consecutive frames by the model's scale.

        The body is a form with the frames as PNG or JPEG files, all fields named `frames`, in order; or one array as
        numpy.save writes it, uint8 (T, H, W, 3), RGB.
        """
        try:
            async with self._bodies, asyncio.timeout(BODY_SECONDS):
                window = await read_window(request.headers, request.stream(), self._limits)
        except RefusedError as error:
            return _refusal(error.status, error.reason)
        except TimeoutError:
            return _refusal(HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_SECONDS:g} s")
        try:
            frame = await self._upscaler.upscale.remote(window)
        except BackPressureError:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests wait already; try again later")
        except Exception as error:  # of the replica, whose log has it all; Ray's own message is a whole traceback
            cause = getattr(error, "cause", None) or error
            reason = f"{type(cause).__name__}: {one_line(cause)[:REASON]}"
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"the model failed on this window ({reason})")
        return Response(await asyncio.to_thread(to_png, frame), media_type="image/png")

    @api.get("/healthz", response_model=None)
    async def health(self) -> Response:
        """200 and what is served, where a replica of the model runs; else 503."""
        running = await asyncio.to_thread(_running_replicas)
        if not running:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no replica of the model runs")
        return JSONResponse({"status": "ok", "model": self._model, "frames": self._limits.frames, "replicas": running})
