"""S3 through the environment's endpoint, against a web server that plays S3: odd keys, errors, retries."""

import errno
import io
import random
from collections.abc import Iterator

import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from pyarrow import fs

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.storage import s3
from tests.web_server import WebServer, web_server

CONTENT = random.Random(0).randbytes(400_000)
ODD_KEYS = (
    *("a b.mp4", "h#sh.mp4", "q?v=1&versionId=3.mp4", "50%25.mp4", "50%.mp4", "ü/é.mp4", "me:you@host.mp4", "a+b.mp4"),
    *(
        "x/../dots.mp4",
        "x/./dot.mp4",
        "double//slash.mp4",
        "/slash.mp4",
        "tab\t&<>\"'.mp4",
        "back\\slash.mp4",
        "[*].mp4",
    ),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    with web_server() as served:
        served.forbid_head = False
        served.files["/bucket/a.mp4"] = CONTENT
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield served


def test_every_key_is_read_as_it_is(server: WebServer) -> None:
    server.files = {f"/bucket/{key}": key.encode() for key in ODD_KEYS}
    for key in ODD_KEYS:
        uri = f"s3://bucket/{key}"
        assert storage.stat(uri) == storage.FileStat(uri, False, len(key.encode()), 1795341600.0)
        assert storage.read_bytes(uri) == key.encode()
        assert not storage.is_folder(uri)


def test_a_stream_is_a_file(server: WebServer) -> None:
    oracle = io.BytesIO(CONTENT)
    with storage.open_read("s3://bucket/a.mp4") as stream:
        for offset, whence, size in ((-5000, 2, 4000), (300_000, 0, 50_000), (10, 1, 50), (0, 2, 10), (7, 0, 3)):
            assert stream.seek(offset, whence) == oracle.seek(offset, whence)
            assert stream.read(size) == oracle.read(size)
        with pytest.raises(ValueError, match="negative"):
            stream.seek(-1)


def test_an_empty_object_has_no_bytes(server: WebServer) -> None:
    server.files["/bucket/empty"] = b""
    assert storage.read_bytes("s3://bucket/empty") == b""


def test_what_has_objects_below_is_a_folder(server: WebServer) -> None:
    listing = "<ListBucketResult><KeyCount>{}</KeyCount></ListBucketResult>"
    server.files["/bucket"] = listing.format(1).encode()
    assert storage.is_folder("s3://bucket/folder/")
    server.files["/bucket"] = listing.format(0).encode()
    assert not storage.exists("s3://bucket/folder")
    assert storage.is_folder("s3://bucket")
    del server.files["/bucket"]
    assert not storage.exists("s3://bucket")


def test_missing_and_forbidden_are_told_apart(server: WebServer) -> None:
    with pytest.raises(FileNotFoundError, match="s3://bucket/gone"):
        storage.open_read("s3://bucket/gone")
    server.forbid_head = True
    with pytest.raises(PermissionError, match="s3://bucket/a.mp4"):
        storage.stat("s3://bucket/a.mp4")


def test_requests_that_fail_are_sent_again(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.failures = 5
    assert storage.read_bytes("s3://bucket/a.mp4") == CONTENT
    server.failures = 5
    assert storage.stat("s3://bucket/a.mp4").bytes == len(CONTENT)
    server.failures = 100
    with pytest.raises(OSError, match="503"):
        storage.read_bytes("s3://bucket/a.mp4")
    assert 100 - server.failures == s3.BOTO_ATTEMPTS


def test_a_refusal_is_asked_about_once_more(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 403 under load too, whatever is asked: also after it was busy, and to every request of a stream."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.files["/bucket"] = b"<ListBucketResult><KeyCount>1</KeyCount></ListBucketResult>"
    server.refusals = 1
    assert storage.read_bytes("s3://bucket/a.mp4") == CONTENT
    server.refusals, server.failures = 1, 2
    assert storage.stat("s3://bucket/a.mp4").bytes == len(CONTENT)
    with storage.open_read("s3://bucket/a.mp4") as stream:
        server.refusals = 1
        assert stream.read() == CONTENT
    server.refusals = 1
    assert storage.list_folder("s3://bucket") == []
    assert server.refusals == 0


def test_a_second_refusal_is_final(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.refusals = 100
    with pytest.raises(PermissionError, match="s3://bucket/a.mp4"):
        storage.read_bytes("s3://bucket/a.mp4")
    assert server.refusals == 98
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        storage.list_folder("s3://bucket")
    assert server.refusals == 96


def test_pyarrow_tries_more_often_than_by_default(server: WebServer) -> None:
    filesystem, path = storage.filesystem("s3://bucket/a.mp4")
    server.failures = 3  # the default's tries
    assert filesystem.open_input_file(path).read() == CONTENT
    assert server.failures == 0


def test_a_connection_that_breaks_is_taken_up_again(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.break_after = [300_000, 10]
    assert storage.read_bytes("s3://bucket/a.mp4") == CONTENT
    assert server.break_after == []


def test_a_bucket_has_one_file_system(server: WebServer) -> None:
    first, path = storage.filesystem("s3://bucket/a/b c")
    assert path == "bucket/a/b c"
    assert storage.filesystem("s3://bucket")[0] is first
    assert storage.filesystem("s3://bucket")[1] == "bucket"
    assert first.region == "us-east-1"


def test_the_endpoint_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        monkeypatch.delenv(name, raising=False)
    assert s3.endpoint() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
    assert s3.endpoint() == "http://general"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")
    assert s3.endpoint() == "http://s3"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert s3.endpoint() is None


def test_at_amazon_the_region_is_the_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(fs, "resolve_s3_region", lambda _: "eu-west-3")
    assert storage.filesystem("s3://here")[0].region == "eu-west-3"

    def unreachable(bucket: str) -> str:
        raise OSError(f"Bucket '{bucket}' not found")

    monkeypatch.setattr(fs, "resolve_s3_region", unreachable)
    assert storage.filesystem("s3://hidden")[0].region == "us-east-1"
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(UserError, match="cannot open storage s3://gone/x: Bucket 'gone' not found"):
        storage.filesystem("s3://gone/x")


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="http://store"),
        ConnectTimeoutError(endpoint_url="http://store"),
        EndpointConnectionError(endpoint_url="http://store"),
        ConnectionClosedError(endpoint_url="http://store"),
        ProxyConnectionError(proxy_url="http://store"),
        SSLError(endpoint_url="http://store", error="bad certificate"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_store_that_does_not_answer_is_an_error_of_storage(error: Exception) -> None:
    with pytest.raises(OSError, match="http://store") as raised, s3.errors("bucket", "key"):
        raise error
    assert raised.value.errno == errno.EIO
    assert raised.value.filename == "s3://bucket/key"
