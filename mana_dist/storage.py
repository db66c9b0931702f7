"""Files by URI: a local path or anything with a scheme, through pyarrow's file systems and smart-open."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

import smart_open
from pyarrow import ArrowException, fs

from mana_dist.errors import UserError

_GCS_RETRY_SECONDS = 60  # without a limit a store that is out of reach hangs the program, silently


def is_remote(uri: str) -> bool:
    """Whether ``uri`` has a scheme other than ``file``."""
    return "://" in uri and not uri.startswith("file://")


def resolve(uri: str) -> str:
    """An absolute local path, or the URI unchanged (``file://`` becomes a path)."""
    if is_remote(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def join(uri: str, *parts: str) -> str:
    """``uri`` and ``parts`` with a single slash between them."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow file system of ``uri`` and the path in it.

    Credentials and endpoint come from the standard environment variables (``AWS_ENDPOINT_URL`` included).

    Raises:
        UserError: no file system has this scheme.
    """
    resolved = resolve(uri)
    if not is_remote(uri):
        return fs.LocalFileSystem(), resolved
    # Only scheme and bucket are parsed as a URI: an object's name may hold spaces, '#', '?' and '%'.
    scheme, _, location = resolved.partition("://")
    bucket, slash, key = location.partition("/")
    options = f"?retry_limit_seconds={_GCS_RETRY_SECONDS}" if scheme in ("gs", "gcs") else ""
    try:
        filesystem_, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")
        return filesystem_, root + slash + key
    except (ArrowException, OSError, ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"cannot open storage {uri}: {error}") from error


def exists(uri: str) -> bool:
    """Whether a file or a folder lies at ``uri``."""
    filesystem_, path = filesystem(uri)
    return filesystem_.get_file_info(path).type != fs.FileType.NotFound


def is_folder(uri: str) -> bool:
    """Whether ``uri`` is a folder."""
    filesystem_, path = filesystem(uri)
    return filesystem_.get_file_info(path).type == fs.FileType.Directory


def list_folder(uri: str) -> list[str]:
    """The full URIs of everything directly in the folder ``uri``, sorted; folders without a trailing slash."""
    filesystem_, path = filesystem(uri)
    infos = filesystem_.get_file_info(fs.FileSelector(path))
    return sorted(join(resolve(uri), info.base_name) for info in infos)


def list_files(uri: str) -> list[str]:
    """Everything at any depth below the folder ``uri`` that is no folder, as paths relative to it; in no order."""
    filesystem_, path = filesystem(uri)
    infos = filesystem_.get_file_info(fs.FileSelector(path, recursive=True))
    root = path.rstrip("/")
    return [info.path[len(root) + 1 :] for info in infos if info.type != fs.FileType.Directory]


def open_read(uri: str) -> BinaryIO:
    """A seekable binary stream of the file at ``uri``.

    Raises:
        UserError: nothing here reads this scheme.
        OSError: the file cannot be read.
    """
    resolved = resolve(uri)
    if not is_remote(uri):
        return open(resolved, "rb")
    scheme = resolved.partition("://")[0]
    try:
        if scheme in ("s3", "http", "https"):
            stream: BinaryIO = smart_open.open(resolved, "rb", compression="disable")
            return stream
        filesystem_, path = filesystem(uri)
        return filesystem_.open_input_file(path)
    except (ImportError, NotImplementedError) as error:
        raise UserError(f"cannot read {uri}: nothing installed reads {scheme}:// ({error})") from error


def read_bytes(uri: str) -> bytes:
    """The whole file at ``uri``.

    Raises:
        FileNotFoundError: there is none.
    """
    filesystem_, path = filesystem(uri)
    with filesystem_.open_input_file(path) as stream:
        data: bytes = stream.read()
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file: readers see the old content or the new, never a part; see :func:`open_write`."""
    with open_write(uri) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_write(uri: str) -> Iterator[IO[bytes]]:
    """A binary stream to a file that appears at ``uri``, whole, when the context is left without an exception.

    The data goes to a hidden name beside the file, which is moved to ``uri`` at the end and deleted on failure. An
    object store needs that too: pyarrow closes the stream that an exception leaves, which publishes what it has.
    """
    filesystem_, path = filesystem(uri)
    with _partial_object(filesystem_, path) if is_remote(uri) else _partial_file(Path(path)) as stream:
        yield stream


@contextlib.contextmanager
def _partial_object(filesystem_: fs.FileSystem, path: str) -> Iterator[IO[bytes]]:
    folder, slash, name = path.rpartition("/")
    partial = f"{folder}{slash}.{name}.partial-{uuid.uuid4().hex[:8]}"
    try:
        with filesystem_.open_output_stream(partial) as stream:
            yield stream
        filesystem_.move(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what broke the upload may also keep us from deleting
            filesystem_.delete_file(partial)
        raise


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.partial-", delete=False) as stream:
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            os.unlink(stream.name)
            raise
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, path)


def check_writable(uri: str, key: str) -> None:
    """Write and delete a small file in the folder ``uri``.

    Raises:
        UserError: it cannot be written; names ``key``, the configuration key to mend.
    """
    probe = join(resolve(uri), f".mana_dist-write-test-{uuid.uuid4().hex[:8]}")
    try:
        write_bytes(probe, b"ok")
        filesystem_, path = filesystem(probe)
        filesystem_.delete_file(path)
    except OSError as error:
        raise UserError(
            f"{key}: cannot write to {uri} ({error}); name a folder or bucket that can be written"
        ) from error
