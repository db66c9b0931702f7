"""The page over HTTP: what it answers, what it lets a browser do, and whose clip is whose."""

import asyncio
import html.parser
import http.client
import json
import re
from collections.abc import Iterator

import pytest
import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from urllib3 import HTTPHeaderDict

from mana_dist.serve.web_page import page_service
from mana_dist.serve.web_page.page_service import PageService
from mana_dist.serve.web_page.routes import COOKIE, _pieces, routes
from mana_dist.serve.windows import RefusedError
from tests.serve.web_page.servers import ANNE, Clock, Work, served, service_of

BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def service(work: Work) -> Iterator[PageService]:
    with service_of(work, page_upload=1) as made:
        yield made


@pytest.fixture
def url(service: PageService) -> Iterator[str]:
    with served(service) as address:
        yield address


def ask(method: str, url: str, **options: object) -> urllib3.BaseHTTPResponse:
    return urllib3.request(method, url, retries=False, timeout=300, **options)  # type: ignore[arg-type]


def bring(url: str, data: object = b"frames", cookie: str = "", **headers: str) -> urllib3.BaseHTTPResponse:
    given = BYTES | ({"Cookie": f"{COOKIE}={cookie}"} if cookie else {}) | headers
    return ask("POST", f"{url}/page/clips?name=clip.mp4", body=data, headers=given)


def start(url: str, clip: str, **wanted: object) -> urllib3.BaseHTTPResponse:
    body = json.dumps({"model": "first", "first": 0, "stop": 4} | wanted)
    return ask("POST", f"{url}/page/clips/{clip}/start", body=body, headers={"Content-Type": "application/json"})


def test_the_page_fetches_from_its_own_server_alone(url: str) -> None:
    answer = ask("GET", url)
    text = answer.data.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self' data:; media-src 'self' blob:; connect-src 'self';")
    assert re.search(r"script-src 'sha256-[\w+/]{43}=';", policy)
    named: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            named.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset", "action"))
            assert not [name for name, _ in attrs if name.startswith("on")]

    Reader().feed(text)
    assert [value.partition(",")[0] for value in named] == ["data:image/svg+xml"]
    assert not re.search(r"@import|//[a-z]+\.", text.replace("http://www.w3.org/2000/svg", ""))


def test_a_browser_is_known_by_a_cookie_that_no_script_and_no_other_sites_form_uses(url: str) -> None:
    cookie = ask("GET", url).headers["set-cookie"]
    name, value = cookie.partition(";")[0].split("=")
    assert name == COOKIE
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()  # a link from another site brings the person back to their clips
    clip = bring(url, cookie=value).json()["id"]
    headers = {"Cookie": f"{COOKIE}={value}"}
    assert [found["id"] for found in ask("GET", f"{url}/page/clips", headers=headers).json()] == [clip]
    assert "set-cookie" not in ask("GET", url, headers=headers).headers
    assert ask("GET", f"{url}/page/clips").json() == []


def test_from_upload_to_deletion(url: str, service: PageService) -> None:
    data = bytes(range(256)) * 3000
    answer = bring(url, data)
    clip = answer.json()["id"]
    assert (answer.status, answer.json()["state"], answer.json()["frames"]) == (201, "ready", 6)
    with open(service._clips[clip].source, "rb") as file:
        assert file.read() == data
    assert start(url, clip).json()["state"] == "waiting"
    service.work_one()
    assert ask("GET", f"{url}/page/clips/{clip}").json()["state"] == "done"
    result = ask("GET", f"{url}/page/clips/{clip}/result.mp4")
    assert (result.status, result.data, result.headers["content-type"]) == (200, b"made of 0:4", "video/mp4")
    assert result.headers["content-disposition"] == "attachment"
    assert result.headers["cache-control"] == "no-store"
    assert ask("DELETE", f"{url}/page/clips/{clip}").status == 204
    for gone in (clip, f"{clip}/result.mp4"):
        answer = ask("GET", f"{url}/page/clips/{gone}")
        assert (answer.status, list(answer.json())) == (404, ["detail"])


@pytest.mark.parametrize(
    ("asked", "status", "data", "told"),
    [
        ("bytes=0-3", 206, b"made", "bytes 0-3/11"),
        ("bytes=8-", 206, b"0:4", "bytes 8-10/11"),
        ("bytes=8-99", 206, b"0:4", "bytes 8-10/11"),
        ("bytes=11-", 416, b'{"detail":"compare.mp4 has 11 bytes"}', "bytes */11"),
        ("bytes=5-3", 416, b'{"detail":"compare.mp4 has 11 bytes"}', "bytes */11"),
        (f"bytes={'9' * 5000}-", 416, b'{"detail":"compare.mp4 has 11 bytes"}', "bytes */11"),
        (f"bytes=0-{'9' * 5000}", 416, b'{"detail":"compare.mp4 has 11 bytes"}', "bytes */11"),
        ("lines=1-2", 200, b"made of 0:4", None),
    ],
)
def test_players_get_the_parts_that_they_ask_for(
    url: str, service: PageService, asked: str, status: int, data: bytes, told: str | None
) -> None:
    clip = bring(url).json()["id"]
    start(url, clip)
    service.work_one()
    answer = ask("GET", f"{url}/page/clips/{clip}/compare.mp4", headers={"Range": asked})
    assert answer.status == status
    assert answer.headers.get("content-range") == told
    assert answer.data == data


def test_longer_than_said_is_413_with_and_without_a_length(url: str, service: PageService) -> None:
    line = {"detail": "clip.mp4: is longer than 1 MiB, the server's page_upload; cut it first"}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=300)
    connection.putrequest("POST", "/page/clips?name=clip.mp4")
    for name, value in {**BYTES, "Content-Length": str(2**21)}.items():
        connection.putheader(name, value)
    connection.endheaders()  # and not one byte: nothing needs to come for the answer
    early = connection.getresponse()
    assert (early.status, json.loads(early.read())) == (413, line)
    connection.close()
    endless = (bytes(65536) for _ in range(1000))
    answer = bring(url, endless, **{"Transfer-Encoding": "chunked"})
    assert (answer.status, answer.json()) == (413, line)
    assert service._clips == {}


@pytest.mark.parametrize("interval", [page_service.SILENCE / 3, page_service.SILENCE * 2])
def test_a_slow_upload_is_not_taken_for_a_silent_one(interval: float) -> None:
    """It brings 100 bytes at a time; one that falls silent for longer than the server waits is deleted."""
    clock = Clock()
    with service_of(Work(), clock) as service:
        clip = service.create(ANNE, "clip.mp4")

        async def receive() -> dict[str, object]:
            clock.now += interval
            service.sweep()
            return {"type": "http.request", "body": bytes(100), "more_body": clock.now < 1000 + 10 * interval}

        async def upload() -> None:
            async for piece in _pieces(Request({"type": "http"}, receive), clock):
                service.add(clip, piece)

        if interval > page_service.SILENCE:
            with pytest.raises(RefusedError, match="no such clip"):
                asyncio.run(upload())
        else:
            asyncio.run(upload())
            assert service.state(clip)["bytes"] == 1000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "first", "first": 1e999, "stop": 4}', 400),
        (b'{"model": "first", "first": NaN, "stop": 4}', 400),
        (b'{"model": "\\ud800", "first": 0, "stop": 4}', 400),
        (b"[" * 4000, 400),
        (b"{" + b" " * 4096, 413),
        ((b" " * 1024 for _ in range(5)), 413),
    ],
)
def test_wishes_that_are_none_get_one_line(url: str, service: PageService, body: object, status: int) -> None:
    clip = bring(url).json()["id"]
    json_type = {"Content-Type": "application/json"}
    answer = ask("POST", f"{url}/page/clips/{clip}/start", body=body, headers=json_type)
    assert (answer.status, list(answer.json())) == (status, ["detail"])
    assert service.state(clip)["state"] == "ready"


def test_a_clip_that_is_refused_says_why(url: str, work: Work) -> None:
    work.error = "{source}: not a video that can be read (x)"
    answer = bring(url)
    assert (answer.status, answer.json()) == (422, {"detail": "clip.mp4: not a video that can be read (x)"})


def test_forms_of_other_sites_get_nothing_done(url: str, service: PageService) -> None:
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        assert bring(url, **{"Content-Type": kind}).status == 415
    clip = bring(url).json()["id"]
    answer = ask("POST", f"{url}/page/clips/{clip}/start", body=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status == 400
    assert service.state(clip)["state"] == "ready"
    assert start(url, clip, first="x").status == 400


def test_clients_are_told_apart_by_the_proxys_header_where_one_is_named(work: Work) -> None:
    with service_of(work, page_clips_each=1) as service, served(service, "X-Forwarded-For") as url:
        for address, status in (
            ("6.6.6.6, 192.0.2.1", 201),
            ("7.7.7.7, 192.0.2.1", 429),  # what the client itself wrote before the proxy's entry does not count
            ("192.0.2.2", 201),
            ("2001:db8::1", 201),
            ("2001:db8::ffff:2", 429),  # one network
            ("2001:db8:1::1", 201),
            (("198.51.100.7", "192.0.2.2"), 429),  # a proxy may write its entry as a line of its own
        ):
            headers = HTTPHeaderDict(BYTES)
            for line in [address] if isinstance(address, str) else address:
                headers.add("X-Forwarded-For", line)
            answer = ask("POST", f"{url}/page/clips?name=clip.mp4", body=b"frames", headers=headers)
            assert answer.status == status, address
    with service_of(work, page_clips_each=1) as service, served(service) as url:
        statuses = [bring(url, **{"X-Forwarded-For": address}).status for address in ("192.0.2.1", "192.0.2.2")]
        assert statuses == [201, 429]


def test_without_a_page_there_is_one_line() -> None:
    app, sent = Starlette(routes=routes(lambda: None)), []

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert (sent[0]["status"], sent[1]["body"]) == (404, b'{"detail":"there is no page here; page=true brings it"}')
