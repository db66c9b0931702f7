"""Pixels straight from the pages of a Parquet column chunk, as the shards' writer lays them out.

Parquet has no type of one byte: it stores pixels as INT32, and a list's nesting as two levels for every value. pyarrow
unpacks all of that, at 250 MB of pixels a second and core, five eighths of it for levels that say nothing, since every
sample of a shard has one shape. The writer splits the values into byte planes (BYTE_STREAM_SPLIT), so the first plane
of a page is the pixels as they are in memory, and the other three, at the page's end, are zeros. So here a page is
inflated only to the end of its first plane, into the array that is delivered: four times faster.

The format: https://github.com/apache/parquet-format (src/main/thrift/parquet.thrift, Encodings.md), and Thrift's
compact protocol for the page headers.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_VALUE_BYTES = 4  # of an INT32
_BYTE_STREAM_SPLIT = 9
_DATA_PAGE = 0


class PageDamagedError(Exception):
    """A page's bytes are not those that were written."""


class ChunkLocation(NamedTuple):
    """Where a column chunk lies in its file.

    Attributes:
        start: its first byte.
        length: its bytes.
        level_blocks: blocks of levels before the values of each page.
    """

    start: int
    length: int
    level_blocks: int


class _Page(NamedTuple):
    inflated_bytes: int
    stored_bytes: int
    checksum: int | None
    values: int


def locate(metadata: pq.FileMetaData, group: int, column: int) -> ChunkLocation | None:
    """Where ``column`` of row group ``group`` lies; None if it is laid out in a way that :func:`read_pixels` cannot."""
    chunk, schema = metadata.row_group(group).column(column), metadata.schema.column(column)
    if (
        chunk.physical_type != "INT32"
        or chunk.compression != "ZSTD"
        or chunk.has_dictionary_page
        or not set(chunk.encodings) <= {"BYTE_STREAM_SPLIT", "RLE"}
    ):
        return None
    level_blocks = (schema.max_definition_level > 0) + (schema.max_repetition_level > 0)
    return ChunkLocation(chunk.data_page_offset, chunk.total_compressed_size, level_blocks)


def read_pixels(chunk: memoryview, level_blocks: int, values: int) -> NDArray[np.uint8]:
    """The values of a column chunk.

    Args:
        chunk: its bytes.
        level_blocks: as :func:`locate` says.
        values: how many it must hold.

    Returns:
        uint8 (values,).

    Raises:
        PageDamagedError: a checksum, a length or the compressed data is wrong.
    """
    pixels = np.empty(values, dtype=np.uint8)
    done = position = 0
    while done < values:
        try:
            page, position = _page(chunk, position)
            stored = chunk[position : position + page.stored_bytes]
            position += page.stored_bytes
            if page.checksum is not None and zlib.crc32(stored) != page.checksum & 0xFFFFFFFF:
                raise PageDamagedError("wrong page checksum")
            _inflate(stored, page, level_blocks, pixels[done : done + page.values])
        except (IndexError, KeyError, TypeError, ValueError, OSError) as error:
            raise PageDamagedError(str(error) or type(error).__name__) from error
        done += page.values
    return pixels


def _inflate(stored: memoryview, page: _Page, level_blocks: int, pixels: NDArray[np.uint8]) -> None:
    """Fill ``pixels`` with the first byte plane of a page."""
    levels_bytes = page.inflated_bytes - page.values * _VALUE_BYTES
    # A level is a bit or less; a wild number here would be allocated.
    if pixels.size != page.values or page.values < 1 or not 0 <= levels_bytes <= page.values + 64:
        raise ValueError("a page holds another number of values than it should")
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(stored)), "zstd") as stream:
        levels = stream.read(levels_bytes)
        end = 0
        for _ in range(level_blocks):
            end += 4 + int.from_bytes(levels[end : end + 4], "little")
        # Where a value is missing or another encoding is used, these do not meet.
        if end != levels_bytes or stream.readinto(pixels) != page.values:
            raise ValueError("a page is laid out in another way than its header says")


def _page(chunk: memoryview, position: int) -> tuple[_Page, int]:
    """The page header at ``position``, and where it ends."""
    header, position = _struct(chunk, position)
    if header[1] != _DATA_PAGE or header[5][2] != _BYTE_STREAM_SPLIT:
        raise ValueError("a page of another kind or encoding than the footer says")
    return _Page(header[2], header[3], header.get(4), header[5][1]), position


def _struct(data: memoryview, position: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol: its fields by number, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[position]:
        position += 1
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            number, position = _integer(data, position)
        match kind:
            case 1 | 2:
                fields[number] = kind == 1
            case 4 | 5 | 6:
                fields[number], position = _integer(data, position)
            case 8:
                length, position = _unsigned(data, position)
                fields[number], position = bytes(data[position : position + length]), position + length
            case 12:
                fields[number], position = _struct(data, position)
            case _:
                raise ValueError(f"a page header with a field of kind {kind}")
    return fields, position + 1


def _integer(data: memoryview, position: int) -> tuple[int, int]:
    value, position = _unsigned(data, position)
    return (value >> 1) ^ -(value & 1), position


def _unsigned(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
