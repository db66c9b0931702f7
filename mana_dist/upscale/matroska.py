"""The pixel aspect in a Matroska file's header: FFmpeg's muxer writes it only from a field that PyAV cannot set."""

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

_SEGMENT, _SEEK_HEAD, _VOID = b"\x18\x53\x80\x67", b"\x11\x4d\x9b\x74", b"\xec"
_INFO, _TRACKS = b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b"
_SEEK, _SEEK_ID, _SEEK_POSITION = b"\x4d\xbb", b"\x53\xab", b"\x53\xac"
_TRACK, _TRACK_TYPE, _VIDEO, _CRC = b"\xae", b"\x83", b"\xe0", b"\xbf"
_PIXEL_WIDTH, _PIXEL_HEIGHT = b"\xb0", b"\xba"
_WIDTH, _HEIGHT, _UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"  # of the size to show the picture in
_HEAD_BYTES = 1 << 20
_LONG = 9  # bytes of a void's name and its longest length


class _Element(NamedTuple):
    name: bytes
    data: bytes
    size: int = 0  # with name and length, as read


@contextmanager
def with_display_size(path: str, pixel_aspect: Fraction) -> Iterator[None]:
    """Give the file that FFmpeg writes and closes in this context the size to show its video in."""
    yield
    write_display_size(path, pixel_aspect)


def write_display_size(path: str, pixel_aspect: Fraction) -> None:
    """Write the size to show the video in into a finished file of FFmpeg's.

    Args:
        path: local.
        pixel_aspect: width over height of one pixel.

    Raises:
        ValueError: not a file as FFmpeg writes it.
        OSError: it cannot be read or written.
    """
    with open(path, "r+b") as file:
        head = file.read(_HEAD_BYTES)
        begin = _segment_begin(head)
        elements = list(islice(_elements(head[begin:]), 4))
        if [element.name for element in elements] != [_SEEK_HEAD, _VOID, _INFO, _TRACKS]:
            raise ValueError("not a Matroska file as FFmpeg writes it")
        seek_head, void, info, tracks = elements
        changed = _coded(_with_display_size(tracks, pixel_aspect))
        longer = len(changed) - tracks.size
        # FFmpeg leaves room behind the list of what is where: information and tracks are moved into it.
        listed = _coded(_moved(seek_head, longer))
        room = seek_head.size + void.size - len(listed) - longer
        if longer < 0 or room < _LONG or len(_coded(info)) != info.size:
            raise ValueError("no room for the size to show the video in")
        file.seek(begin)
        file.write(listed + _coded(_Element(_VOID, bytes(room - _LONG))) + _coded(info) + changed)


def display_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return the smallest size of exactly the picture's aspect that holds it, or nearly of it where that is huge."""
    aspect = width * pixel_aspect / height
    times = max(math.ceil(Fraction(width, aspect.numerator)), math.ceil(Fraction(height, aspect.denominator)))
    exact = aspect.numerator * times, aspect.denominator * times
    if exact[0] * exact[1] <= 4 * width * height * max(pixel_aspect, 1 / pixel_aspect):
        return exact
    return (round(width * pixel_aspect), height) if pixel_aspect > 1 else (width, round(height / pixel_aspect))


def _with_display_size(tracks: _Element, pixel_aspect: Fraction) -> _Element:
    entries = list(_elements(tracks.data))
    for number, entry in enumerate(entries):
        parts = list(_elements(entry.data)) if entry.name == _TRACK else []
        if any(part[:2] == (_TRACK_TYPE, b"\x01") for part in parts):
            kept = [part.name == _VIDEO for part in parts].index(True)
            video = [part for part in _elements(parts[kept].data) if part.name not in (_WIDTH, _HEIGHT, _UNIT)]
            values = {part.name: int.from_bytes(part.data) for part in video}
            size = display_size(values[_PIXEL_WIDTH], values[_PIXEL_HEIGHT], pixel_aspect)
            video += [_Element(_WIDTH, _number(size[0])), _Element(_HEIGHT, _number(size[1]))]
            parts[kept] = _Element(_VIDEO, b"".join(map(_coded, video)))
            entries[number] = _Element(_TRACK, b"".join(map(_coded, parts)))
            break
    return _checked(_TRACKS, entries)


def _moved(seek_head: _Element, by: int) -> _Element:
    """Return the list of positions with information and tracks ``by`` bytes earlier."""
    entries = list(_elements(seek_head.data))
    for number, entry in enumerate(entries):
        if entry.name == _SEEK:
            target, position = _elements(entry.data)
            if target.data in (_INFO, _TRACKS):
                place = int.from_bytes(position.data) - by
                position = _Element(_SEEK_POSITION, place.to_bytes(len(position.data)))
            entries[number] = _Element(_SEEK, _coded(target) + _coded(position))
    return _checked(_SEEK_HEAD, entries)


def _checked(name: bytes, parts: Sequence[_Element]) -> _Element:
    """Return an element of these parts, its checksum made anew if it has one."""
    data = b"".join(_coded(part) for part in parts if part.name != _CRC)
    if any(part.name == _CRC for part in parts):
        data = _coded(_Element(_CRC, zlib.crc32(data).to_bytes(4, "little"))) + data
    return _Element(name, data)


def _segment_begin(head: bytes) -> int:
    at = head.find(_SEGMENT)
    if at < 0:
        raise ValueError("not a Matroska file")
    return at + len(_SEGMENT) + _vint_bytes(head[at + len(_SEGMENT)])


def _elements(data: bytes) -> Iterator[_Element]:
    at = 0
    while at < len(data):
        start, begin = at, at + _vint_bytes(data[at])
        name, length = data[at:begin], _vint_bytes(data[begin])
        size = int.from_bytes(data[begin : begin + length]) & (1 << 7 * length) - 1
        at = begin + length + size
        yield _Element(name, data[begin + length : at], at - start)


def _vint_bytes(first: int) -> int:
    if first == 0:
        raise ValueError("not a Matroska file")
    return 9 - first.bit_length()


def _coded(element: _Element) -> bytes:
    size = len(element.data)
    # FFmpeg writes a track's and a void's length as long as can be, all others short: nothing changes its size unasked.
    least = 8 if element.name in (_TRACK, _VOID) else 1
    length = next(count for count in range(least, 9) if size < (1 << 7 * count) - 1)
    return element.name + (size | 1 << 7 * length).to_bytes(length) + element.data


def _number(value: int) -> bytes:
    return value.to_bytes(-(-value.bit_length() // 8))
