"""S3 as the standard environment variables describe it; requests outlive an outage of some seconds."""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, BinaryIO

from pyarrow import fs

from mana_dist.errors import one_line
from mana_dist.remote_file import as_file

MAX_ATTEMPTS = 10
"""Times pyarrow tries a request, by its "standard" back-off: about a minute and a half in all."""
BOTO_ATTEMPTS = 14
"""Times boto3 does; its back-off begins at 50 ms, so ten would be over in a few seconds now and then."""

_FORBIDDEN_PAUSE = 1.0
"""Seconds before a request that was refused is sent once more: S3 says 403 under load too, to who may do all."""

_MISSING = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
_FORBIDDEN = (
    *("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("AccountProblem", "AllAccessDisabled", "InvalidObjectState"),  # the last: archived, to be restored first
)


def filesystem(bucket: str) -> fs.S3FileSystem:
    """The pyarrow file system for ``bucket``; made once per process. To pickle one loses its retries.

    Raises:
        OSError: the bucket's region cannot be found out.
    """
    return _filesystem(bucket, endpoint(), _region(), os.environ.get("AWS_CA_BUNDLE"))


def open_read(bucket: str, key: str) -> BinaryIO:
    """A seekable stream of an object; any key, as it is. A broken connection is taken up again where it broke.

    Raises:
        OSError: FileNotFoundError and PermissionError where they are meant. So for all reads of the stream.
    """
    client = _client(endpoint(), _region(), _credentials())
    with errors(bucket, key):
        size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
    return as_file(_reader(client, bucket, key), size, functools.partial(errors, bucket, key))


def read_bytes(bucket: str, key: str) -> bytes:
    """The whole of an object, in one request.

    Raises:
        OSError: FileNotFoundError and PermissionError where they are meant.
    """
    with errors(bucket, key), _reader(_client(endpoint(), _region(), _credentials()), bucket, key) as reader:
        data: bytes = reader.read()
    return data


def head(bucket: str, key: str) -> tuple[int, float] | None:
    """Bytes and time of the last change (seconds since the epoch) of an object; None for a folder.

    One request, two for a folder. Asks S3 itself: pyarrow's paths cannot hold all keys ('a//b', 'a/../b').

    Args:
        bucket: its name.
        key: the object's or the folder's; empty for the bucket.

    Raises:
        OSError: FileNotFoundError and PermissionError where they are meant.
    """
    client = _client(endpoint(), _region(), _credentials())
    with errors(bucket, key):
        if not key:
            client.head_bucket(Bucket=bucket)
            return None
        with contextlib.suppress(FileNotFoundError), errors(bucket, key):
            found = client.head_object(Bucket=bucket, Key=key)
            return found["ContentLength"], found["LastModified"].timestamp()
        if client.list_objects_v2(Bucket=bucket, Prefix=f"{key.rstrip('/')}/", MaxKeys=1).get("KeyCount"):
            return None
    raise _missing(bucket, key)


def endpoint() -> str | None:
    """The endpoint in the environment; None for Amazon's own."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@contextlib.contextmanager
def errors(bucket: str, key: str) -> Iterator[None]:
    """Whatever boto3 and smart-open raise inside comes out as an OSError in one line."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise _as_os_error(error, bucket, key) from error
    except OSError as error:
        cause = getattr(error, "backend_error", None)  # where smart-open keeps it
        if cause is None:
            raise
        raise _as_os_error(cause, bucket, key) from error


def _as_os_error(error: Any, bucket: str, key: str) -> OSError:
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if code in _MISSING:
        return _missing(bucket, key)
    message = one_line(error)
    if code in _FORBIDDEN:
        return PermissionError(errno.EACCES, message, f"s3://{bucket}/{key}")
    return OSError(errno.EIO, message, f"s3://{bucket}/{key}")


def _missing(bucket: str, key: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such object or bucket", f"s3://{bucket}/{key}")


def _reader(client: Any, bucket: str, key: str) -> Any:
    from smart_open import s3

    # Not smart_open.open: that finds credentials in a key with '@' and a version in one with '?'.
    return s3.open(bucket, key, "rb", client=client, defer_seek=True)


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def _credentials() -> tuple[str | None, ...]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
    return tuple(os.environ.get(name) for name in names)


@functools.lru_cache(maxsize=64)
def _filesystem(bucket: str, url: str | None, region: str | None, certificates: str | None) -> fs.S3FileSystem:
    if url is None:  # at Amazon the bucket's own region, whatever the environment says, as FileSystem.from_uri does
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError:
            if region is None:
                raise
    return fs.S3FileSystem(
        endpoint_override=url,
        region=region,
        tls_ca_file_path=certificates,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
    )


@functools.lru_cache(maxsize=8)
def _client(url: str | None, region: str | None, _: tuple[str | None, ...]) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": BOTO_ATTEMPTS}
    config = Config(retries=retries, max_pool_connections=64, tcp_keepalive=True)
    session = Session(region_name=region)  # the default one is no good in threads
    client = session.client("s3", endpoint_url=url, config=config)
    client.meta.events.register("needs-retry.s3", _forbidden_once)
    return client


def _forbidden_once(response: Any, request_dict: dict[str, Any], **_: Any) -> float | None:
    """Tell boto3 to send a request once more that was refused for the first time, and after how many seconds."""
    context = request_dict["context"]
    if response is None or response[0].status_code != HTTPStatus.FORBIDDEN or "refused" in context:
        return None
    context["refused"] = True
    return _FORBIDDEN_PAUSE
