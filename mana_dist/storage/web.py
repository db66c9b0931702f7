"""Files on web servers: read only, by URL, with the query that a signed one has."""

import contextlib
import errno
import functools
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, TypeVar

from mana_dist.errors import one_line
from mana_dist.storage.remote_file import as_file

_TIMEOUT_SECONDS = 60
_WAITS = (0.5, 1, 2, 4, 8)
"""Seconds before a connection that broke is opened again."""
_CONNECT_TRIES = 6
"""At opening one, with waits of 0, 1, 2, 4, 8 and 16 seconds between them."""

_Result = TypeVar("_Result")


def open_read(url: str) -> BinaryIO:
    """Return a seekable stream of the file at ``url``; a connection that breaks is resumed where it broke.

    From a server without range requests the file is copied to a temporary one at the first seek.
    """
    with errors(url):
        stream = _Resumed(url)
    return as_file(stream, stream.size, functools.partial(errors, url))


def head(url: str) -> tuple[int | None, float | None]:
    """Return bytes and time of the last change (seconds since the epoch) of a file; None where the server omits them.

    Asks for the first byte: a URL that was signed for reading refuses a HEAD request.
    """
    headers = {"Accept-Encoding": "identity", "Range": "bytes=0-0"}
    with errors(url), _session().get(url, stream=True, headers=headers, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code != 416:  # of an empty file there is no first byte
            response.raise_for_status()
        if response.status_code == 200:
            size = response.headers.get("Content-Length", "")
        else:
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            response.content  # noqa: B018  # read it out: the connection can be used again
        changed = None
        with contextlib.suppress(KeyError, ValueError, TypeError):
            changed = parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()
        return int(size) if size.isdecimal() else None, changed


@contextlib.contextmanager
def errors(url: str) -> Iterator[None]:
    """Turn whatever requests, urllib3 and smart-open raise into an OSError in one line."""
    import requests
    import urllib3

    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (404, 410):
            raise FileNotFoundError(errno.ENOENT, f"no such file (HTTP status {status})", url) from error
        if status in (401, 403):
            raise PermissionError(errno.EACCES, f"access denied (HTTP status {status})", url) from error
        raise OSError(errno.EIO, one_line(error), url) from error


class _ChangedError(OSError):
    """The file is another than the one whose beginning was read."""


class _Resumed:
    """smart-open's stream of a URL, opened again where it breaks."""

    def __init__(self, url: str) -> None:
        self._url, self._position = url, 0
        self._broken = False
        self._stream: Any = _open(url)
        self._version = _version_of(self._stream)
        length = self._stream.content_length
        self.size: int | None = length if length >= 0 else None

    def read(self, size: int) -> bytes:
        data: bytes = self._persist(lambda: self._stream.read(size))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        self._position = self._persist(lambda: self._seek(offset, whence))
        return self._position

    def close(self) -> None:
        self._stream.close()

    def _persist(self, action: Callable[[], _Result]) -> _Result:
        """Return the result of ``action``, tried again on a fresh connection as often as the one in use breaks."""
        import requests
        import urllib3

        for wait in (*_WAITS, None):
            try:
                if self._broken:
                    self._reopen()
                return action()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                # smart-open's own are plain OSErrors; requests' are final: it tried again already.
                if wait is None or isinstance(error, requests.RequestException | _ChangedError):
                    raise
                self._broken = True
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _reopen(self) -> None:
        """Open the file again where it broke."""
        self._stream.close()
        self._stream = _open(self._url)
        if _version_of(self._stream) != self._version:
            raise _ChangedError(errno.EIO, "changed while it was read", self._url)
        self._seek(self._position, io.SEEK_SET)
        self._broken = False

    def _seek(self, offset: int, whence: int) -> int:
        try:
            return int(self._stream.seek(offset, whence))
        except io.UnsupportedOperation:  # no range requests, or no length
            copy = _copy_of(self._url)
            self._stream.close()
            self._stream = copy
            return copy.seek(offset, whence)


def _open(url: str) -> Any:
    from smart_open import http

    return http.open(url, "rb", session=_session(), timeout=_TIMEOUT_SECONDS)


def _version_of(stream: Any) -> tuple[str | None, ...]:
    return tuple(stream.response.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length"))


def _copy_of(url: str) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # the stream's to close
    with contextlib.closing(_open(url)) as stream:
        shutil.copyfileobj(stream, copy)
    return copy


@functools.lru_cache(maxsize=1)
def _session() -> Any:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    class OnceForbidden(Retry):
        """Sends a request once more that was refused: signed URLs of S3 answer 403 under load too."""

        def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
            refused = status_code == 403 and not any(past.status == 403 for past in self.history)
            return refused or super().is_retry(method, status_code, has_retry_after)

    retries = OnceForbidden(
        total=_CONNECT_TRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=64))
    return session
