"""Records of finished segments: small JSON files beside the pictures."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.upscale.segments import Segment


class PacketOrder(NamedTuple):
    """The difference between the order of packets and that of frames.

    Attributes:
        reorder: how many packets a frame comes at most before its turn in display order.
        tail: how many frames are shown after the one whose packet is the last.
    """

    reorder: int = 0
    tail: int = 0


_IN_ORDER = PacketOrder()


@dataclass(frozen=True)
class Record:
    """The record of a finished segment.

    Attributes:
        pts: time stamps of its frames, in the source's ticks, in display order.
        last_duration: duration of its last frame, in the source's ticks; 0 if it is not stored.
        order: order of the packets.
        compare_order: order of the side-by-side's packets.
        width: width of the upscaled frames.
        height: height of the upscaled frames.
        damaged: places in it of the frames that cannot be trusted.
        missing: how many frames are missing before those that are there.
        trouble: why the container could not be read on, in the last segment; empty where it could.
        cuts: how many of its frames begin another shot than the one before.
        difference: difference of the still that ``--compare`` cuts out, between bicubic and MANA.
        files: names and bytes of its other files.
    """

    pts: tuple[int, ...] = ()
    last_duration: int = 0
    order: PacketOrder = _IN_ORDER
    compare_order: PacketOrder = _IN_ORDER
    width: int = 0
    height: int = 0
    damaged: tuple[int, ...] = ()
    missing: int = 0
    trouble: str = ""
    cuts: int = 0
    difference: float = 0.0
    files: Mapping[str, int] = field(default_factory=dict)


def write(folder: str, segment: Segment, record: Record) -> None:
    """Record that a segment is finished; all else of it must be in its place.

    Raises:
        OSError: it cannot be written.
    """
    storage.write_bytes(_uri(folder, segment), json.dumps(asdict(record)).encode())


def sizes(folder: str) -> dict[str, int | None]:
    """Return the bytes of all files in a work folder by their names: one request for all calls of :func:`read`.

    Raises:
        OSError: the storage failed.
    """
    with contextlib.suppress(FileNotFoundError):
        return {file.path: file.bytes for file in storage.list_files(folder)}
    return {}


def read(folder: str, segment: Segment, found_sizes: Mapping[str, int | None] | None = None) -> Record | None:
    """Return a segment's record; None if it is not finished, or its files are not as they were written.

    Args:
        folder: URI.
        segment: a segment of the video.
        found_sizes: result of :func:`sizes`; None: they are looked up one by one.

    Raises:
        OSError: the storage failed.
    """
    try:
        found = json.loads(storage.read_bytes(_uri(folder, segment)))
        for name, size in found["files"].items():
            there = storage.stat(storage.join(folder, name)).bytes if found_sizes is None else found_sizes.get(name)
            if there != size:
                return None
        places = {name: tuple(found[name]) for name in ("pts", "damaged")}
        packets = {name: PacketOrder(*found[name]) for name in ("order", "compare_order")}
    except (FileNotFoundError, ValueError, KeyError):  # the machine lost power; KeyError: an older version wrote it
        return None
    return Record(**{**found, **packets, **places})


def read_finished(folder: str, segments: Iterable[Segment]) -> list[Record]:
    """Return the records of all segments.

    Raises:
        UserError: one is not finished; a record of it is deleted.
        OSError: the storage failed.
    """
    found_sizes = sizes(folder)
    records = []
    for segment in segments:
        found = read(folder, segment, found_sizes)
        if found is None:
            with contextlib.suppress(OSError):
                storage.delete(_uri(folder, segment))
            raise UserError(f"{folder}: {segment.name} is missing; run the same command again")
        records.append(found)
    return records


def _uri(folder: str, segment: Segment) -> str:
    return storage.join(folder, f"{segment.name}.json")
