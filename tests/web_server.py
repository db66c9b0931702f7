"""A web server for tests, with the faults that real ones have."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

_INVALID_RANGE = b"<Error><Code>InvalidRange</Code></Error>"  # as S3 says it


@dataclass
class WebServer:
    """What it serves and how; may be changed while it runs.

    Attributes:
        url: where it is.
        files: content by path.
        ranges: whether it takes range requests.
        lengths: whether it tells a file's length.
        break_after: the connections of the next so many bodies break after as many bytes.
        wrong_ranges: the next so many answers to range requests say that they begin elsewhere.
        failures: the next so many requests are answered with status 503.
        forbid_head: whether HEAD is forbidden, as for a URL that was signed for GET.
        version: the files' entity tag.
        refusals: the next so many requests are answered with status 403.
        requests: what was asked, like 'GET /a.mp4 bytes=0-0'.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    break_after: list[int] = field(default_factory=list)
    wrong_ranges: int = 0
    failures: int = 0
    forbid_head: bool = True
    version: str = "1"
    refusals: int = 0
    requests: list[str] = field(default_factory=list)


@contextmanager
def web_server() -> Iterator[WebServer]:
    served = WebServer()

    class Handler(_Handler):
        server_data = served

    server = _Server(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A reader that hangs up before the end is no news."""


class _Handler(BaseHTTPRequestHandler):
    server_data: WebServer

    def do_HEAD(self) -> None:
        if self.server_data.forbid_head:
            self._record()
            self._answer(403, {}, b"")
        else:
            self._respond(with_body=False)

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self, *, with_body: bool) -> None:
        data = self.server_data
        self._record()
        if data.failures:
            data.failures -= 1
            return self._answer(503, {"Content-Length": "0"}, b"")
        if data.refusals:
            data.refusals -= 1
            return self._answer(403, {"Content-Length": "0"}, b"")
        content = data.files.get(unquote(self.path.partition("?")[0]))
        if content is None:
            return self._answer(404, {"Content-Length": "0"}, b"")
        headers = {"ETag": f'"{data.version}"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if data.ranges else None
        status = 200
        if asked is not None:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            wrong = data.wrong_ranges > 0 and first > 0
            data.wrong_ranges -= wrong
            headers["Content-Range"] = f"bytes {first + wrong}-{last}/{len(content)}"
            if first >= len(content):
                return self._answer(416, {"Content-Range": f"bytes */{len(content)}"}, _INVALID_RANGE)
            status, content = 206, content[first : last + 1]
        if data.lengths:
            headers["Content-Length"] = str(len(content))
        return self._answer(status, headers, content if with_body else b"")

    def _record(self) -> None:
        self.server_data.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".rstrip())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        # Before anything is sent: who has the headers may ask for more before the body has gone.
        if len(body) > 1 and self.server_data.break_after:
            body = body[: self.server_data.break_after.pop(0)]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
