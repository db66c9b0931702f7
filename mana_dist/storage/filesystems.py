"""The pyarrow file system of a URI, and the translation of pyarrow's errors into Python's."""

import contextlib
import errno
from collections.abc import Iterator

from pyarrow import ArrowException, fs

from mana_dist.errors import UserError, one_line
from mana_dist.storage import s3
from mana_dist.storage.uris import is_remote, is_web, resolve, split

_GCS_RETRY_SECONDS = 60  # without a limit the program hangs silently while the store is out of reach


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow file system of ``uri`` and the path in it.

    Credentials and endpoint come from the standard environment variables (``AWS_ENDPOINT_URL`` included).
    """
    resolved = resolve(uri)
    if not is_remote(uri):
        return fs.LocalFileSystem(), resolved
    scheme, bucket, key = split(resolved)
    path = f"{bucket}/{key}" if key else bucket
    try:
        if scheme == "s3":
            return s3.filesystem(bucket), path
        if is_web(uri):
            raise NotImplementedError("files on web servers can be read by their URLs, not written or listed")
        # Only scheme and bucket are parsed as a URI: an object's name may contain spaces, '#', '?' and '%'.
        options = f"?retry_limit_seconds={_GCS_RETRY_SECONDS}" if scheme in ("gs", "gcs") else ""
        filesystem_, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")
        return filesystem_, f"{root}/{key}" if key else root
    except (ArrowException, OSError, ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"cannot open storage {uri}: {error}") from error


@contextlib.contextmanager
def arrow_errors(uri: str) -> Iterator[None]:
    """Turn pyarrow's own exceptions into OSError."""
    try:
        yield
    except ArrowException as error:  # names that pyarrow cannot represent, like 'a//b'
        raise OSError(errno.EINVAL, one_line(error), uri) from error


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn Python's exception for an impossible name into FileNotFoundError."""
    try:
        yield
    except ValueError as error:  # a zero byte or half a character in the name
        raise FileNotFoundError(errno.ENOENT, f"no file can have this name ({error})", path) from error
