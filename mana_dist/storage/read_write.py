"""Reading, writing and deleting files by URI."""

import contextlib
import io
import mmap
import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from pyarrow import fs

from mana_dist.errors import UserError
from mana_dist.storage import file_names, filesystems, s3, s3_upload, web
from mana_dist.storage.filesystems import arrow_errors, local_errors
from mana_dist.storage.uris import is_remote, is_web, join, resolve, split

_BUFFER_BYTES = 4 * 1024 * 1024  # size of pyarrow's requests, which are otherwise as small as the reader's
_BELOW_BYTES = 200  # length of the longest path that a command makes below its folder


def open_read(uri: str) -> BinaryIO:
    """Return a seekable binary stream of the file at ``uri``. Remote ones outlive an outage of some seconds."""
    resolved = resolve(uri)
    if not is_remote(uri):
        with local_errors(resolved):
            return open(resolved, "rb")
    scheme, bucket, key = split(resolved)
    try:
        if is_web(uri):
            return web.open_read(uri)
        if scheme == "s3":
            return s3.open_read(bucket, key)
    except ImportError as error:
        raise UserError(f"cannot read {uri}: nothing installed reads {scheme}:// ({error})") from error
    filesystem_, path = filesystems.filesystem(uri)
    with arrow_errors(uri):
        return cast("BinaryIO", io.BufferedReader(filesystem_.open_input_file(path), _BUFFER_BYTES))


def read_bytes(uri: str) -> bytes:
    """Return the content of the file at ``uri``."""
    if uri.startswith("s3://"):
        _, bucket, key = split(resolve(uri))
        return s3.read_bytes(bucket, key)
    with open_read(uri) as stream:
        return stream.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file: readers see the old content or the new, never a part of it."""
    with open_write(uri) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_write(uri: str, partial_folder: str = "") -> Iterator[IO[bytes]]:
    """Open a binary stream to a file that appears at ``uri``, whole, when the context is left without an exception.

    On S3 and Google the end of the upload makes the object visible. Elsewhere the data is written under a hidden name,
    beside the file or in ``partial_folder`` beside it, which is moved to ``uri`` at the end and deleted on failure.
    """
    scheme, bucket, key = split(resolve(uri)) if is_remote(uri) else ("", "", "")
    if scheme == "s3":
        with s3_upload.open_write(bucket, key) as stream:
            yield stream
        return
    filesystem_, path = filesystems.filesystem(uri)
    folder, slash, name = path.rpartition("/")
    folder = f"{folder}{slash}{partial_folder}/" if partial_folder else f"{folder}{slash}"
    hidden = f"{folder}{file_names.partial_prefix(name)}{uuid.uuid4().hex[:8]}"
    if isinstance(filesystem_, fs.GcsFileSystem):
        opened = _one_call(filesystem_, path)
    else:
        opened = _partial_object(filesystem_, hidden, path) if is_remote(uri) else _partial_file(hidden, path)
    with opened as stream:
        yield stream


@contextlib.contextmanager
def _one_call(filesystem_: fs.FileSystem, path: str) -> Iterator[IO[bytes]]:
    """Gather the data in a temporary file first: pyarrow completes an upload that an exception interrupts."""
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
        with contextlib.suppress(OSError):  # what broke the upload may also prevent deleting
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
    """Delete the file at ``uri``."""
    if not is_remote(uri):  # pyarrow fails at a name that is not UTF-8
        path = resolve(uri)
        with local_errors(path):
            os.unlink(path)
        return
    filesystem_, path = filesystems.filesystem(uri)
    with arrow_errors(uri):
        filesystem_.delete_file(path)


def check_writable(uri: str, key: str) -> None:
    """Check that files can be written in the folder ``uri``, by writing and deleting a small one.

    A local folder that is not there is not made: the file is written where it would be.

    Raises:
        UserError: they cannot, or names below it would be too long; the message begins with ``key``, the configuration
            key or option to mend.
    """
    if problem := file_names.name_problem(join(uri, "x" * _BELOW_BYTES)):
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
