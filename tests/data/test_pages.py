"""Pixels unpacked from Parquet pages are pyarrow's; damage never passes for pixels."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mana_dist.data.pages import PageDamagedError, locate, read_pixels

SPLIT = {"column_encoding": {"x.list.element": "BYTE_STREAM_SPLIT"}, "use_dictionary": False}


def written(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    schema = pa.schema([pa.field("x", column.type, nullable=False)])
    file = io.BytesIO()
    options = {"compression": "zstd", "write_page_checksum": True, **options}
    pq.write_table(pa.Table.from_arrays([column], schema=schema), file, **options)
    return file.getvalue()


def by_pyarrow(file: bytes) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = pq.read_table(io.BytesIO(file))["x"].combine_chunks().to_numpy_ndarray()
    return pixels


def by_pages(file: bytes) -> NDArray[np.uint8]:
    """Of all row groups."""
    metadata = pq.read_metadata(io.BytesIO(file))
    parts = []
    for group in range(metadata.num_row_groups):
        chunk = locate(metadata, group, 0)
        assert chunk is not None
        data = memoryview(file)[chunk.start : chunk.start + chunk.length]
        parts.append(read_pixels(data, chunk.level_blocks, metadata.row_group(group).column(0).num_values))
    return np.concatenate(parts)


def picture(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Noise above, flat below: stored as it is, and compressed."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels[..., shape[-3] // 2 :, :, :] = 7
    return pixels


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 30), st.integers(1, 30), st.just(3)),
    st.sampled_from([64, 1000, 2**20]),
    st.sampled_from([1, 2, 100]),
    st.sampled_from([1, 9]),
    st.booleans(),
)
def test_pixels_are_those_that_pyarrow_reads(
    shape: tuple[int, int, int, int], page_bytes: int, group_rows: int, level: int, checksum: bool
) -> None:
    pixels = picture(shape)
    options = {"row_group_size": group_rows, "data_page_size": page_bytes, "write_batch_size": 16}
    file = written(pixels, **SPLIT, **options, compression_level=level, write_page_checksum=checksum)
    assert np.array_equal(by_pyarrow(file), pixels)
    assert np.array_equal(by_pages(file).reshape(shape), pixels)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip"])
def test_other_compressions_are_left_to_pyarrow(compression: str) -> None:
    file = written(picture((2, 8, 8, 3)), **SPLIT, compression=compression)
    assert locate(pq.read_metadata(io.BytesIO(file)), 0, 0) is None


def test_other_encodings_are_left_to_pyarrow() -> None:
    for options in ({"use_dictionary": True}, {"use_dictionary": False}):
        file = written(picture((2, 8, 8, 3)), **options)
        assert locate(pq.read_metadata(io.BytesIO(file)), 0, 0) is None


def test_pages_of_the_second_version_are_refused_not_misread() -> None:
    file = written(picture((2, 8, 8, 3)), **SPLIT, data_page_version="2.0")
    with pytest.raises(PageDamagedError):
        by_pages(file)


@pytest.mark.parametrize("checksum", [True, False])
def test_no_flipped_bit_passes_for_pixels(checksum: bool) -> None:
    """Any bit of the pages; some bits of a page's header mean nothing, and without a checksum pixels may change."""
    pixels = picture((2, 6, 6, 3))
    file = written(pixels, **SPLIT, write_page_checksum=checksum, data_page_size=100, write_batch_size=16)
    metadata = pq.read_metadata(io.BytesIO(file))
    chunk = locate(metadata, 0, 0)
    assert chunk is not None
    found = 0
    for place in range(chunk.length * 8):
        damaged = bytearray(file[chunk.start : chunk.start + chunk.length])
        damaged[place // 8] ^= 1 << place % 8
        try:
            read = read_pixels(memoryview(damaged), chunk.level_blocks, pixels.size)
        except PageDamagedError:
            found += 1
        else:
            assert not checksum or np.array_equal(read, pixels.ravel())
    assert found > chunk.length * 8 * (0.8 if checksum else 0.2)


def test_a_chunk_cut_short_is_damage() -> None:
    pixels = picture((2, 6, 6, 3))
    file = written(pixels, **SPLIT, data_page_size=100, write_batch_size=16)
    chunk = locate(pq.read_metadata(io.BytesIO(file)), 0, 0)
    assert chunk is not None
    for length in range(chunk.length):
        with pytest.raises(PageDamagedError):
            read_pixels(memoryview(file)[chunk.start : chunk.start + length], chunk.level_blocks, pixels.size)
