"""The page over HTTP: its routes, for any ASGI app, in front of a service that may be in another process."""

import base64
import functools
import hashlib
import ipaddress
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mana_dist.serve.web_page.clip import Client
from mana_dist.serve.windows import RefusedError

COOKIE = "mana_browser"
PIECE = 2**20
"""Bytes that go to the service, or come from it, at a time."""
_PASS_SECONDS = 5.0  # after which fewer go, so that the service sees that a slow upload is not silent
_WISH = 4096  # bytes of what says how to upscale a clip
_UPLOAD = "application/octet-stream"  # no form of another site can send it
_TYPES = {".png": "image/png", ".mp4": "video/mp4"}
_SAFE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class PageBackend:
    """The way to a service.

    Attributes:
        call: name of a method of :class:`~mana_dist.serve.web_page.page_service.PageService`, its arguments -> what it
            returns.
        client_header: header that holds the client's address; None: the connection's counts.
    """

    call: Callable[..., Awaitable[Any]]
    client_header: str | None = None


Endpoint = Callable[[Request, PageBackend], Awaitable[Response]]


def routes(backend: Callable[[], PageBackend | None]) -> list[Route]:
    """Return the page's routes; ``backend`` is called at each request, None: there is no page."""

    def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
        @functools.wraps(endpoint)
        async def answer(request: Request) -> Response:
            found = backend()
            if found is None:
                return JSONResponse({"detail": "there is no page here; page=true brings it"}, HTTPStatus.NOT_FOUND)
            try:
                return await endpoint(request, found)
            except RefusedError as error:
                return JSONResponse({"detail": error.reason}, error.status, _SAFE)

        return Route(path, answer, methods=[method])

    return [
        route("/", _page),
        route("/page/about", _about),
        route("/page/clips", _mine),
        route("/page/clips", _create, "POST"),
        route("/page/clips/{id}", _state),
        route("/page/clips/{id}", _delete, "DELETE"),
        route("/page/clips/{id}/start", _start, "POST"),
        route("/page/clips/{id}/{name}", _file),
    ]


@functools.cache
def _html() -> tuple[str, dict[str, str]]:
    """Return the page, and headers by which it runs its own script and fetches from nowhere else."""
    text = resources.files("mana_dist.serve.web_page").joinpath("web_page.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = "img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; style-src 'unsafe-inline'"
    policy = f"default-src 'none'; {own}; script-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'"
    return text, _SAFE | {"Content-Security-Policy": policy}


async def _page(request: Request, _: PageBackend) -> Response:
    text, headers = _html()
    answer = HTMLResponse(text, headers=headers)
    if COOKIE not in request.cookies:
        answer.set_cookie(COOKIE, secrets.token_urlsafe(16), httponly=True, samesite="lax")
    return answer


async def _about(_: Request, backend: PageBackend) -> Response:
    return JSONResponse(await backend.call("about"), headers=_SAFE)


async def _mine(request: Request, backend: PageBackend) -> Response:
    return JSONResponse(await backend.call("of_browser", _client(request, backend)), headers=_SAFE)


async def _create(request: Request, backend: PageBackend) -> Response:
    if request.headers.get("content-type") != _UPLOAD:
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the file's bytes as {_UPLOAD}")
    sample, name = "sample" in request.query_params, request.query_params.get("name", "")
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    id_ = await backend.call("create", _client(request, backend), name, size, sample)
    if not sample:
        try:
            async for piece in _pieces(request):
                await backend.call("add", id_, piece)
        except ClientDisconnect:
            await backend.call("delete", id_)
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        await backend.call("finish", id_)
    return JSONResponse(await backend.call("state", id_), HTTPStatus.CREATED, _SAFE)


async def _pieces(request: Request, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[bytes]:
    waiting, passed = bytearray(), clock()
    async for piece in request.stream():
        waiting += piece
        if len(waiting) >= PIECE or clock() - passed > _PASS_SECONDS:
            yield bytes(waiting)
            waiting.clear()
            passed = clock()
    yield bytes(waiting)


async def _state(request: Request, backend: PageBackend) -> Response:
    return JSONResponse(await backend.call("state", request.path_params["id"]), headers=_SAFE)


async def _start(request: Request, backend: PageBackend) -> Response:
    try:
        if request.headers.get("content-type") != "application/json":
            raise ValueError("no JSON")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _WISH:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {_WISH} bytes")
        wanted = json.loads(body)
        model, first, stop = str(wanted["model"]), int(wanted["first"]), int(wanted["stop"])
        model.encode()  # half of a pair of surrogates would fit into no answer
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'send JSON: {"model": NAME, "first": N, "stop": N}') from error
    return JSONResponse(await backend.call("start", request.path_params["id"], model, first, stop), headers=_SAFE)


async def _delete(request: Request, backend: PageBackend) -> Response:
    await backend.call("delete", request.path_params["id"])
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def _file(request: Request, backend: PageBackend) -> Response:
    """Answer with a file or a part of it: players ask for parts."""
    id_, name = request.path_params["id"], request.path_params["name"]
    size, _ = await backend.call("read", id_, name, 0, 0)
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    try:
        begin = int(found[1]) if found else 0
        end = min(int(found[2]) + 1, size) if found and found[2] else size
    except ValueError:  # more digits than Python reads
        begin = end = size
    headers = _SAFE | {"Accept-Ranges": "bytes", "Content-Length": str(end - begin)}
    if found and begin >= end:
        line = {"detail": f"{name} has {size} bytes"}
        return JSONResponse(line, 416, _SAFE | {"Content-Range": f"bytes */{size}"})
    if found:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    if name == "result.mp4":
        headers["Content-Disposition"] = "attachment"

    async def pieces() -> AsyncIterator[bytes]:
        at = begin
        while at < end:
            _, piece = await backend.call("read", id_, name, at, min(PIECE, end - at))
            if not piece:
                break
            yield piece
            at += len(piece)

    return StreamingResponse(pieces(), 206 if found else 200, headers, _TYPES[name[-4:]])


def _client(request: Request, backend: PageBackend) -> Client:
    address = request.client.host if request.client else ""
    if backend.client_header:
        # A proxy appends what it saw, to the line or as a line of its own; what stands before may be the client's.
        address = (request.headers.getlist(backend.client_header) or [address])[-1].rpartition(",")[2].strip()
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if parsed.version == 6 and not parsed.ipv4_mapped:  # a household has as many as it likes in its network
            address = str(ipaddress.ip_network((parsed, 64), strict=False))
    return Client(address, request.cookies.get(COOKIE, "")[:64])
