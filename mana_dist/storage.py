"""Files by URI: a local path or anything with a scheme, through pyarrow's file systems and smart-open."""

import os
import tempfile
import uuid
from pathlib import Path
from typing import BinaryIO

import smart_open
from pyarrow import ArrowException, fs

from mana_dist.errors import UserError


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
    try:
        filesystem_, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}")
        return filesystem_, root + slash + key
    except (ArrowException, OSError, ValueError) as error:
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


def open_read(uri: str) -> BinaryIO:
    """A seekable binary stream of the file at ``uri``."""
    stream: BinaryIO = smart_open.open(resolve(uri), "rb", compression="disable")
    return stream


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
    """Write a whole file: readers see the old content or the new, never a part.

    Locally the data goes to a temporary name beside the file and is renamed; an object store publishes an object
    only when its upload is complete.
    """
    filesystem_, path = filesystem(uri)
    if is_remote(uri):
        with filesystem_.open_output_stream(path) as stream:
            stream.write(data)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as stream:
        try:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            os.unlink(stream.name)
            raise
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, target)


def copy_folder(source: str, destination: str) -> None:
    """Copy every file under ``source`` to ``destination``; a local destination appears whole or not at all."""
    source_fs, source_path = filesystem(source)
    target_fs, target_path = filesystem(destination)
    if is_remote(destination):
        fs.copy_files(source_path, target_path, source_filesystem=source_fs, destination_filesystem=target_fs)
        return
    partial = f"{target_path}.partial-{uuid.uuid4().hex[:8]}"
    os.makedirs(partial)
    fs.copy_files(source_path, partial, source_filesystem=source_fs, destination_filesystem=target_fs)
    if os.path.isdir(target_path):
        os.rename(target_path, f"{partial}.old")
    os.rename(partial, target_path)
    if os.path.isdir(f"{partial}.old"):
        target_fs.delete_dir(f"{partial}.old")


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
