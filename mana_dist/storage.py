"""Files by URI: a local path or anything with a scheme, through pyarrow's file systems and smart-open.

After ``s3://`` and ``gs://`` everything is part of the name as it is: spaces, '#', '?', '%', '..'. Only ``http://`` and
``https://`` URLs are URLs, with query and escapes; they can be read, one file at a time.
"""

import contextlib
import errno
import io
import mmap
import os
import re
import stat as modes
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, NamedTuple, cast

from pyarrow import ArrowException, fs

from mana_dist import file_names, http_files, s3_store, s3_upload
from mana_dist.errors import UserError, one_line

_GCS_RETRY_SECONDS = 60  # without a limit a store that is out of reach hangs the program, silently
_BUFFER_BYTES = 4 * 1024 * 1024  # of files that pyarrow reads: it asks a store for no more than it is asked for
_BELOW_BYTES = 200  # of the longest name that a command makes below its folder, the folders in it included
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WILDCARD = re.compile(r"[*?[]")
_REFUSED = "AWS Error ACCESS_DENIED"  # pyarrow has no other sign of it


@dataclass(frozen=True)
class FileStat:
    """What a storage knows of a file or a folder without reading it.

    Attributes:
        uri: its URI.
        folder: whether it is a folder; then the rest is None.
        bytes: size; None where a web server does not tell.
        modified: time of the last change, seconds since the epoch; None where a web server does not tell.
    """

    uri: str
    folder: bool
    bytes: int | None = None
    modified: float | None = None


class ListedFile(NamedTuple):
    """A file in the listing of a folder: its path relative to that, its size, and its last change as FileStat's."""

    path: str
    bytes: int | None
    modified: float | None


def is_remote(uri: str) -> bool:
    """Whether ``uri`` has a scheme other than ``file``."""
    return _SCHEME.match(uri) is not None and not uri.startswith("file://")


def is_web(uri: str) -> bool:
    """Whether ``uri`` is a URL of a web server."""
    return uri.startswith(("http://", "https://"))


def resolve(uri: str) -> str:
    """An absolute local path, or the URI unchanged but for slashes at its end (``file://`` becomes a path)."""
    if is_web(uri):
        return uri
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
    scheme, bucket, key = _split(resolved)
    path = f"{bucket}/{key}" if key else bucket
    try:
        if scheme == "s3":
            return s3_store.filesystem(bucket), path
        if is_web(uri):
            raise NotImplementedError("files on web servers can be read by their URLs, not written or listed")
        # Only scheme and bucket are parsed as a URI: an object's name may hold spaces, '#', '?' and '%'.
        options = f"?retry_limit_seconds={_GCS_RETRY_SECONDS}" if scheme in ("gs", "gcs") else ""
        filesystem_, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}{options}")
        return filesystem_, f"{root}/{key}" if key else root
    except (ArrowException, OSError, ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"cannot open storage {uri}: {error}") from error


def stat(uri: str) -> FileStat:
    """Whether a file or a folder lies at ``uri``, and what is known of a file: one request, two for a folder.

    Raises:
        UserError: nothing here reads this scheme.
        OSError: it cannot be reached; FileNotFoundError where there is nothing.
    """
    resolved = resolve(uri)
    if not is_remote(uri):
        with _local_errors(resolved):
            local = os.stat(resolved)
        if modes.S_ISDIR(local.st_mode):
            return FileStat(resolved, folder=True)
        return FileStat(resolved, False, local.st_size, local.st_mtime)
    scheme, bucket, key = _split(resolved)
    if is_web(uri):
        return FileStat(uri, False, *http_files.head(uri))
    if scheme == "s3":
        found = s3_store.head(bucket, key)
        return FileStat(resolved, folder=True) if found is None else FileStat(resolved, False, *found)
    filesystem_, path = filesystem(uri)
    with _arrow_errors(uri):
        info = filesystem_.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", uri)
    if info.type == fs.FileType.Directory:
        return FileStat(resolved, folder=True)
    return FileStat(resolved, False, info.size, info.mtime_ns and info.mtime_ns / 1e9)


def exists(uri: str) -> bool:
    """Whether a file or a folder lies at ``uri``.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        stat(uri)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_folder(uri: str) -> bool:
    """Whether ``uri`` is a folder; without a request for a URL of a web server, which never is.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        return not is_web(uri) and stat(uri).folder
    except (FileNotFoundError, NotADirectoryError):
        return False


def list_folder(uri: str) -> list[str]:
    """The full URIs of everything directly in the folder ``uri``, sorted; folders without a trailing slash.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(join(resolve(uri), name) for name, _ in _entries(uri))


def files_in(uri: str) -> list[str]:
    """As :func:`list_folder`, without the folders.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(join(resolve(uri), name) for name, folder in _entries(uri) if not folder)


def list_files(uri: str, unreadable: Callable[[OSError], None] | None = None) -> list[ListedFile]:
    """Everything at any depth below the folder ``uri`` that is no folder; in no order.

    One listing: an object store is asked once per 1000 objects. Local links are followed, but not into a folder
    that they lie in, and those that lead nowhere are left out.

    Args:
        uri: the folder.
        unreadable: told of a local folder below ``uri`` that cannot be read; without it that is an error.

    Raises:
        OSError: it cannot be listed.
    """
    if not is_remote(uri):
        return list(_walk(resolve(uri), "", (), unreadable))
    filesystem_, path = filesystem(uri)
    infos = _listed(filesystem_, fs.FileSelector(path, recursive=True), uri)
    skip = len(path.rstrip("/")) + 1
    return [
        ListedFile(info.path[skip:], info.size, info.mtime_ns and info.mtime_ns / 1e9)
        for info in infos
        if info.type != fs.FileType.Directory
    ]


def has_wildcards(uri: str) -> bool:
    """Whether the path in ``uri`` reads as a pattern: holds '*', '?' or '['. It may be a name nonetheless."""
    return not is_web(uri) and _WILDCARD.search(uri) is not None


def split_pattern(uri: str) -> tuple[str, re.Pattern[str]]:
    """The folder in which all that a pattern like ``s3://b/films/*/[ab]?.mp4`` can match lies, and the rest of it.

    '*' and '?' match within a name, '**' any number of folders. A wildcard matches no name that begins with a dot,
    unless a dot before it says so.

    Returns:
        The folder's URI, and what matches paths relative to it as a whole (``re.Pattern.fullmatch``).

    Raises:
        UserError: not a pattern.
    """
    from fsspec.utils import glob_translate

    parts = resolve(uri).split("/")
    literal = next(index for index, part in enumerate(parts) if _WILDCARD.search(part))
    folder, pattern = "/".join(parts[:literal]), "/".join(parts[literal:])
    if is_remote(uri) and literal < 3:
        raise UserError(f"{uri}: the bucket's name must stand without wildcards")
    visible = "" if "/." in f"/{pattern}" else r"(?!(?s:.*/)?\.)"
    try:
        return folder or "/", re.compile(visible + glob_translate(pattern))
    except (ValueError, re.error) as error:
        raise UserError(f"{uri}: not a pattern that can be matched ({error})") from error


def open_read(uri: str) -> BinaryIO:
    """A seekable binary stream of the file at ``uri``. Remote ones outlive an outage of some seconds.

    Raises:
        UserError: nothing here reads this scheme.
        OSError: the file cannot be read; FileNotFoundError where there is none. So for all reads of the stream.
    """
    resolved = resolve(uri)
    if not is_remote(uri):
        with _local_errors(resolved):
            return open(resolved, "rb")
    scheme, bucket, key = _split(resolved)
    try:
        if is_web(uri):
            return http_files.open_read(uri)
        if scheme == "s3":
            return s3_store.open_read(bucket, key)
    except ImportError as error:
        raise UserError(f"cannot read {uri}: nothing installed reads {scheme}:// ({error})") from error
    filesystem_, path = filesystem(uri)
    with _arrow_errors(uri):
        return cast("BinaryIO", io.BufferedReader(filesystem_.open_input_file(path), _BUFFER_BYTES))


def read_bytes(uri: str) -> bytes:
    """The whole file at ``uri``.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
    """
    if uri.startswith("s3://"):
        _, bucket, key = _split(resolve(uri))
        return s3_store.read_bytes(bucket, key)
    with open_read(uri) as stream:
        return stream.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file: readers see the old content or the new, never a part; see :func:`open_write`."""
    with open_write(uri) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_write(uri: str, partial_folder: str = "") -> Iterator[IO[bytes]]:
    """Give a binary stream to a file that appears at ``uri``, whole, when the context is left without an exception.

    An object of S3 or Google appears by the end of its upload. Elsewhere the data goes to a hidden name, which is moved
    to ``uri`` at the end and deleted on failure.

    Args:
        uri: the file.
        partial_folder: name of a folder beside the file for the hidden name, where there is one.
    """
    scheme, bucket, key = _split(resolve(uri)) if is_remote(uri) else ("", "", "")
    if scheme == "s3":
        with s3_upload.open_write(bucket, key) as stream:
            yield stream
        return
    filesystem_, path = filesystem(uri)
    folder, slash, name = path.rpartition("/")
    folder = f"{folder}{slash}{partial_folder}/" if partial_folder else f"{folder}{slash}"
    hidden = f"{folder}{file_names.partial_prefix(name)}{uuid.uuid4().hex[:8]}"
    if isinstance(filesystem_, fs.GcsFileSystem):
        with _one_call(filesystem_, path) as stream:
            yield stream
    elif is_remote(uri):
        with _partial_object(filesystem_, hidden, path) as stream:
            yield stream
    else:
        with _partial_file(hidden, path) as stream:
            yield stream


@contextlib.contextmanager
def _one_call(filesystem_: fs.FileSystem, path: str) -> Iterator[IO[bytes]]:
    """Gather the data in a temporary file first: pyarrow ends the upload that an exception interrupts as if whole."""
    with tempfile.TemporaryFile() as stream:
        yield stream
        stream.flush()
        size = stream.seek(0, os.SEEK_END)
        with filesystem_.open_output_stream(path) as upload:
            if size:
                upload.write(mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ))


@contextlib.contextmanager
def _partial_object(filesystem_: fs.FileSystem, partial: str, path: str) -> Iterator[IO[bytes]]:
    try:
        with filesystem_.open_output_stream(partial) as stream:
            yield stream
        filesystem_.move(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what broke the upload may also keep us from deleting
            filesystem_.delete_file(partial)
        raise


@contextlib.contextmanager
def _partial_file(partial: str, path: str) -> Iterator[IO[bytes]]:
    os.makedirs(os.path.dirname(partial), exist_ok=True)
    with open(partial, "xb") as stream:
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            os.unlink(partial)
            raise
    os.chmod(partial, 0o644)
    os.replace(partial, path)


def delete(uri: str) -> None:
    """Delete the file at ``uri``.

    Raises:
        OSError: it cannot be deleted; FileNotFoundError where there is none.
    """
    if not is_remote(uri):  # pyarrow gives up at a name that is not UTF-8
        path = resolve(uri)
        with _local_errors(path):
            os.unlink(path)
        return
    filesystem_, path = filesystem(uri)
    with _arrow_errors(uri):
        filesystem_.delete_file(path)


def name_problem(uri: str) -> str:
    """Return why nothing can be written at ``uri``, a name that is too long; empty if its length is no hindrance."""
    if is_remote(uri):
        return file_names.key_problem(_split(resolve(uri))[2])
    return file_names.path_problem(resolve(uri))


def check_writable(uri: str, key: str) -> None:
    """Write and delete a small file in the folder ``uri``, below which there must be room for longer names too.

    A local folder that is not there is not made: the file is written where it would be.

    Raises:
        UserError: it cannot be written; names ``key``, the configuration key to mend.
    """
    if problem := name_problem(join(uri, "x" * _BELOW_BYTES)):
        raise UserError(f"{key}: {uri}: what lies below is too deep ({problem}); name a shorter one")
    folder = resolve(uri)
    while not is_remote(folder) and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    probe = join(folder, f".mana_dist-write-test-{uuid.uuid4().hex[:8]}")
    try:
        write_bytes(probe, b"ok")
        delete(probe)
    except OSError as error:
        raise UserError(
            f"{key}: cannot write to {uri} ({error}); name a folder or bucket that can be written"
        ) from error


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a remote URI, nothing of it decoded."""
    scheme, _, location = uri.partition("://")
    bucket, _, key = location.partition("/")
    return scheme, bucket, key


def _entries(uri: str) -> list[tuple[str, bool]]:
    """Names of everything directly in a folder, and which of it are folders."""
    if not is_remote(uri):  # pyarrow's listing gives up at a name that is not UTF-8
        folder = resolve(uri)
        with _local_errors(folder), os.scandir(folder) as scan:
            return [(entry.name, entry.is_dir()) for entry in scan]
    filesystem_, path = filesystem(uri)
    infos = _listed(filesystem_, fs.FileSelector(path), uri)
    return [(info.base_name, info.type == fs.FileType.Directory) for info in infos]


def _listed(filesystem_: fs.FileSystem, selector: fs.FileSelector, uri: str) -> list[fs.FileInfo]:
    """A folder's listing; asked for once more where it is refused, as S3 does under load."""
    with _arrow_errors(uri):
        try:
            return filesystem_.get_file_info(selector)
        except OSError as error:
            if _REFUSED not in str(error):
                raise
        time.sleep(1)
        return filesystem_.get_file_info(selector)


def _walk(
    root: str, relative: str, above: tuple[tuple[int, int], ...], unreadable: Callable[[OSError], None] | None
) -> Iterator[ListedFile]:
    """By hand: pyarrow's listing gives up at a name that is not UTF-8, and goes around a circle of links 40 times."""
    folder = os.path.join(root, relative)
    try:
        itself = os.stat(folder)
        with os.scandir(folder) as scan:
            entries = list(scan)
    except OSError as error:
        if unreadable is None or not relative:
            raise
        unreadable(error)
        return
    identity = itself.st_dev, itself.st_ino
    if identity in above:
        return
    for entry in entries:
        path = f"{relative}{entry.name}"
        if entry.is_symlink() and not os.path.exists(entry.path):
            continue
        if entry.is_dir():
            yield from _walk(root, f"{path}/", (*above, identity), unreadable)
        else:
            with contextlib.suppress(FileNotFoundError):  # deleted just now
                found = entry.stat()
                yield ListedFile(path, found.st_size, found.st_mtime)


@contextlib.contextmanager
def _arrow_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except ArrowException as error:  # names that pyarrow cannot hold, like 'a//b'
        raise OSError(errno.EINVAL, one_line(error), uri) from error


@contextlib.contextmanager
def _local_errors(path: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # a zero byte or half a character in the name
        raise FileNotFoundError(errno.ENOENT, f"no file can have this name ({error})", path) from error
