"""Files on web servers, good ones and bad ones."""

import io
import random
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from mana_dist import storage
from mana_dist.storage import web
from tests.web_server import WebServer, web_server

CONTENT = random.Random(0).randbytes(700_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "_WAITS", (0.0, 0.0, 0.0))
    with web_server() as served:
        served.files["/a.mp4"] = CONTENT
        yield served


def read_about(stream: BinaryIO) -> None:
    """Read here and there as a demultiplexer does, and compare with the content."""
    oracle = io.BytesIO(CONTENT)
    for offset, whence, size in (
        (0, 0, 1000),
        (-5000, 2, 4000),
        (300_000, 0, 200_000),
        (10, 1, 50),
        (0, 2, 10),
        (7, 0, 3),
    ):
        assert stream.seek(offset, whence) == oracle.seek(offset, whence)
        assert stream.read(size) == oracle.read(size)
        assert stream.tell() == oracle.tell()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_is_read_from_any_server(server: WebServer, ranges: bool, lengths: bool) -> None:
    server.ranges, server.lengths = ranges, lengths
    with storage.open_read(f"{server.url}/a.mp4") as stream:
        read_about(stream)
    assert storage.read_bytes(f"{server.url}/a.mp4") == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(server: WebServer, ranges: bool) -> None:
    server.ranges = ranges
    server.break_after = [300_000, 100_000]
    assert storage.read_bytes(f"{server.url}/a.mp4") == CONTENT
    server.break_after = [10_000, 20, 0]
    with storage.open_read(f"{server.url}/a.mp4") as stream:
        read_about(stream)
    assert server.break_after == []


def test_what_breaks_while_it_is_taken_up_is_taken_up_again(server: WebServer) -> None:
    # Without range requests the file is copied to be gone on with, and the copy breaks.
    server.ranges = False
    server.break_after = [300_000, len(CONTENT), len(CONTENT), 1000]
    assert storage.read_bytes(f"{server.url}/a.mp4") == CONTENT
    assert server.break_after == []


def test_an_answer_that_begins_elsewhere_is_asked_for_again(server: WebServer) -> None:
    server.break_after = [300_000]
    server.wrong_ranges = 2
    with storage.open_read(f"{server.url}/a.mp4") as stream:
        read_about(stream)
    assert (server.break_after, server.wrong_ranges) == ([], 0)


def test_a_refusal_is_asked_about_once_more_and_then_final(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed URL of S3 answers 403 under load too."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.refusals = 1
    assert storage.read_bytes(f"{server.url}/a.mp4") == CONTENT
    server.refusals, server.failures = 1, 1
    assert storage.stat(f"{server.url}/a.mp4").bytes == len(CONTENT)
    server.refusals = 100
    with pytest.raises(PermissionError, match="access denied"):
        storage.stat(f"{server.url}/a.mp4")
    assert server.refusals == 98


def test_what_breaks_again_and_again_is_an_error(server: WebServer) -> None:
    server.break_after = [100_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(OSError, match="IncompleteRead|broken"), storage.open_read(f"{server.url}/a.mp4") as stream:
        stream.read()


def test_a_file_that_changes_while_it_is_read_is_an_error(server: WebServer) -> None:
    server.break_after = [300_000]
    with storage.open_read(f"{server.url}/a.mp4") as stream:
        stream.read(1000)
        server.version = "2"
        with pytest.raises(OSError, match="changed while it was read|412"):
            stream.read()


def test_a_server_that_is_busy_is_asked_again(server: WebServer) -> None:
    server.failures = 2
    assert storage.read_bytes(f"{server.url}/a.mp4") == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
def test_stat_asks_once_and_reads_no_content(server: WebServer, ranges: bool, lengths: bool) -> None:
    server.ranges, server.lengths = ranges, lengths
    found = storage.stat(f"{server.url}/a.mp4?signature=x")
    assert (found.folder, found.modified) == (False, 1795341600.0)  # date -d 'Sun, 22 Nov 2026 10:00:00 GMT' +%s
    assert found.bytes == (len(CONTENT) if ranges or lengths else None)
    assert server.requests == ["GET /a.mp4?signature=x bytes=0-0"]


def test_an_empty_file_has_no_bytes(server: WebServer) -> None:
    server.files["/empty.mp4"] = b""
    for server.ranges in (True, False):
        assert storage.stat(f"{server.url}/empty.mp4").bytes == 0
        assert storage.read_bytes(f"{server.url}/empty.mp4") == b""


def test_missing_files_and_folders(server: WebServer) -> None:
    url = f"{server.url}/gone.mp4"
    for read in (storage.open_read, storage.stat):
        with pytest.raises(FileNotFoundError, match="no such file .*404.*gone.mp4"):
            read(url)
    assert not storage.exists(url)
    assert storage.exists(f"{server.url}/a.mp4")
    server.requests.clear()
    assert not storage.is_folder(url)
    assert server.requests == []


def test_odd_names_are_escaped_and_the_query_is_kept(server: WebServer) -> None:
    server.files["/ü b%.mp4"] = CONTENT
    for name in ("ü b%25.mp4", "%C3%BC%20b%25.mp4", "ü b%25.mp4?a=b/c/"):
        assert storage.read_bytes(f"{server.url}/{name}") == CONTENT
    assert storage.resolve("http://host/a/?b=c/") == "http://host/a/?b=c/"


def test_a_server_that_does_not_answer_is_an_error(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_CONNECT_TRIES", 1)
    web._session.cache_clear()
    with pytest.raises(OSError, match="127.0.0.1"):
        storage.stat("http://127.0.0.1:9/a.mp4")
    web._session.cache_clear()
