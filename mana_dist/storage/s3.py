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
from mana_dist.storage.remote_file import as_file

MAX_ATTEMPTS = 10
"""Times pyarrow tries a request, by its "standard" back-off: about a minute and a half in all."""
BOTO_ATTEMPTS = 14
"""Times boto3 does; its back-off begins at 50 ms, so ten would be over in a few seconds now and then."""

_FORBIDDEN_PAUSE = 1.0
"""Seconds before a request that was refused is sent once more: S3 says 403 under load too, to who may do all."""

_MISSING = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
_CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", *_MISSING)  # since it was read
_FORBIDDEN = (
    *("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("AccountProblem", "AllAccessDisabled", "InvalidObjectState"),  # the last: archived, to be restored first
)


def filesystem(bucket: str) -> fs.S3FileSystem:
    """Return the pyarrow file system for ``bucket``; made once per process. Pickling one loses its retries."""
    return _filesystem(bucket, endpoint(), _region(), os.environ.get("AWS_CA_BUNDLE"))


def client() -> Any:
    """Return the boto3 client for the environment as it is now; made once per process. Threads may share it."""
    return _client(endpoint(), _region(), _credentials())


def open_read(bucket: str, key: str) -> BinaryIO:
    """Return a seekable stream of an object; any key, as it is. A broken connection is resumed where it broke."""
    opened = client()
    with errors(bucket, key):
        size = opened.head_object(Bucket=bucket, Key=key)["ContentLength"]
    return as_file(_reader(opened, bucket, key), size, functools.partial(errors, bucket, key))


def read_bytes(bucket: str, key: str) -> bytes:
    """Return the whole of an object, in one request."""
    with errors(bucket, key), _reader(client(), bucket, key) as reader:
        data: bytes = reader.read()
    return data


def head(bucket: str, key: str) -> tuple[int, float] | None:
    """Return bytes and time of the last change (seconds since the epoch) of an object; None for a folder or a bucket.

    One request, two for a folder. Asks S3 itself: pyarrow's paths cannot hold all keys ('a//b', 'a/../b').
    """
    asked = client()
    with errors(bucket, key):
        if not key:
            asked.head_bucket(Bucket=bucket)
            return None
        with contextlib.suppress(FileNotFoundError), errors(bucket, key):
            found = asked.head_object(Bucket=bucket, Key=key)
            return found["ContentLength"], found["LastModified"].timestamp()
        if asked.list_objects_v2(Bucket=bucket, Prefix=f"{key.rstrip('/')}/", MaxKeys=1).get("KeyCount"):
            return None
    raise _missing(bucket, key)


def read_now(bucket: str, key: str) -> tuple[bytes, str] | None:
    """Return a small object as it is now, and its ETag; None where there is none.

    For callers who wait for the answer: it gives up after some seconds instead of outliving an outage.
    """
    try:
        with errors(bucket, key):
            found = _prompt_client().get_object(Bucket=bucket, Key=key)
            return found["Body"].read(), found["ETag"]
    except FileNotFoundError:
        return None


def swap(bucket: str, key: str, old: bytes | None, new: bytes | None) -> bool:
    """Replace the small object ``old`` by ``new``, unless it is another by now; None stands for no object.

    By S3's conditional writes, so that of all who replace the same object one succeeds. Gives up after some seconds.

    Returns:
        Whether the object is ``new`` now; also where an earlier call did it whose answer was lost.

    Raises:
        NotImplementedError: the store has no conditional writes.
    """
    from botocore.exceptions import ClientError

    found = read_now(bucket, key)
    content = found and found[0]
    if content != old or old == new:
        return content == new
    client, name = _prompt_client(), {"Bucket": bucket, "Key": key}
    condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
    with errors(bucket, key):
        try:
            if new is None:
                client.delete_object(**name, **condition)
            else:
                client.put_object(**name, **condition, Body=new)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "NotImplemented":
                raise NotImplementedError(str(error)) from error
            if code not in _CHANGED:
                raise
            now = read_now(bucket, key)
            return (now and now[0]) == new
    return True


def endpoint() -> str | None:
    """Return the endpoint in the environment; None for Amazon's own."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@contextlib.contextmanager
def errors(bucket: str, key: str) -> Iterator[None]:
    """Turn whatever boto3 and smart-open raise into an OSError of the fitting class, in one line."""
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
    # Where no answer came, botocore's errors have a response of None.
    response = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
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


def _prompt_client() -> Any:
    """Return a client that gives up after some seconds."""
    return _client(endpoint(), _region(), _credentials(), attempts=2, timeout=5)


@functools.lru_cache(maxsize=8)
def _client(
    url: str | None, region: str | None, _: tuple[str | None, ...], attempts: int = BOTO_ATTEMPTS, timeout: int = 60
) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(
        retries=retries, max_pool_connections=64, tcp_keepalive=True, connect_timeout=timeout, read_timeout=timeout
    )
    # The default session is no good in threads.
    client = Session(region_name=region).client("s3", endpoint_url=url, config=config)
    client.meta.events.register("needs-retry.s3", _forbidden_once)
    return client


def _forbidden_once(response: Any, request_dict: dict[str, Any], **_: Any) -> float | None:
    """Tell boto3 to send a request once more that was refused for the first time, and after how many seconds."""
    context = request_dict["context"]
    if response is None or response[0].status_code != HTTPStatus.FORBIDDEN or "refused" in context:
        return None
    context["refused"] = True
    return _FORBIDDEN_PAUSE
