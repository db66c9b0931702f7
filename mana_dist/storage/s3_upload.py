"""Uploads to S3: an object is invisible before it is whole, and none is copied."""

import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

from mana_dist.storage import s3

_PART_BYTES = 16 * 2**20
_EQUAL_PARTS = 1000  # some stores need parts of one size; only an object of more than these 16 GiB has growing ones
_GROWTH_BYTES = 144 * 2**10
_PARALLEL_PARTS = 4


def part_bytes(number: int) -> int:
    """Return the size of part ``number``, counted from 1: the 10,000 parts of an upload have room for 5 TiB."""
    return _PART_BYTES + max(0, number - _EQUAL_PARTS) * _GROWTH_BYTES


@contextlib.contextmanager
def open_write(bucket: str, key: str) -> Iterator[IO[bytes]]:
    """Open a binary stream to an object that appears, whole, when the context is left without an exception.

    Up to one part is sent in one request; more is a multipart upload, which is aborted on failure. A killed process
    leaves an unfinished upload, which no listing shows and which a lifecycle rule of the bucket deletes.
    """
    upload = _Upload(bucket, key)
    try:
        yield cast("IO[bytes]", upload)
        upload.finish()
    except BaseException:
        upload.abandon()
        raise


class _Upload(io.RawIOBase):
    def __init__(self, bucket: str, key: str) -> None:
        self._bucket, self._key = bucket, key
        self._client = s3.client()
        self._buffer = bytearray()
        self._position = 0
        self._id: str | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._parts: list[Future[str]] = []  # entity tags

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._buffer += data
        self._position += size
        while len(self._buffer) >= (full := part_bytes(len(self._parts) + 1)):
            part = bytes(memoryview(self._buffer)[:full])
            del self._buffer[:full]
            self._send(part)
        return size

    def finish(self) -> None:
        """Complete the upload."""
        if self._id is None:
            self._call("put_object", Body=bytes(self._buffer))
            return
        if self._buffer:
            self._send(bytes(self._buffer))
        tags = [{"PartNumber": number, "ETag": part.result()} for number, part in enumerate(self._parts, 1)]
        self._call("complete_multipart_upload", UploadId=self._id, MultipartUpload={"Parts": tags})
        self._end_threads()

    def abandon(self) -> None:
        """Abort the upload, if the store can be reached."""
        self._end_threads()  # a part that arrives after the abort would stay
        if self._id is not None:
            with contextlib.suppress(OSError):
                self._call("abort_multipart_upload", UploadId=self._id)

    def _send(self, part: bytes) -> None:
        if self._threads is None:
            self._id = self._call("create_multipart_upload")["UploadId"]
            self._threads = ThreadPoolExecutor(_PARALLEL_PARTS, thread_name_prefix="s3-upload")
        if len(self._parts) >= _PARALLEL_PARTS:
            self._parts[-_PARALLEL_PARTS].result()  # raises its failure, and bounds what waits in memory
        self._parts.append(self._threads.submit(self._send_now, len(self._parts) + 1, part))

    def _send_now(self, number: int, part: bytes) -> str:
        sent = self._call("upload_part", UploadId=self._id, PartNumber=number, Body=part)
        return str(sent["ETag"])

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _call(self, operation: str, **arguments: Any) -> Any:
        with s3.errors(self._bucket, self._key):
            return getattr(self._client, operation)(Bucket=self._bucket, Key=self._key, **arguments)
