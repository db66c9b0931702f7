"""The table of sources beside a manifest: which clips a dataset was made of, and what was left out of them."""

import dataclasses
import hashlib
import io
import typing
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from mana_dist import storage
from mana_dist.errors import UserError, one_line, redacted
from mana_dist.footage.expand import Clip


@dataclass(frozen=True)
class SourceRow:
    """A clip that was ingested, or looked at and refused."""

    uri: str  # where it was read, without passwords
    clip: str  # its name, as in the shards' column ``clip``
    unit: str  # the shards that hold its samples; empty where it gave none
    bytes: int | None  # its size then, None where the storage did not tell; with ``modified`` it tells a changed source
    modified: float | None  # when it was changed last, seconds since the epoch; None where the storage did not tell
    start: int  # first frame used
    stop: int | None  # first frame not used any more; None for the end
    downscale: int  # what its frames were shrunk by before they were taken as HR
    frames: int
    samples: int
    cuts: int  # shot cuts found
    duplicates: int  # frames left out because they repeat the one before
    flat: int  # samples left out for want of detail
    note: str  # what was lost of it, or why it gave nothing
    wrong_motion: int = 0  # samples left out because they move too little or too much
    detail: float | None = None  # mean of the frames looked at, grey levels; None where there are none
    blockiness: float | None = None  # their mean
    blur: float | None = None  # their mean
    hashes: str | None = None  # theirs, 16 hexadecimal digits each, to find near-duplicates by
    lr: str | None = None  # of a pair, where its LR frames were read, without passwords

    def __post_init__(self) -> None:
        """Hide secrets of URIs."""
        object.__setattr__(self, "uri", redacted(self.uri))
        object.__setattr__(self, "note", redacted(self.note))
        object.__setattr__(self, "lr", self.lr and redacted(self.lr))

    def is_of(self, clip: Clip) -> bool:
        """Return whether ``clip`` is this source, unchanged, with the same frames to use."""
        mine = (self.uri, self.lr, self.bytes, self.modified, self.start, self.stop, self.downscale)
        lr = clip.lr and redacted(clip.lr)
        return mine == (clip.source, lr, clip.bytes, clip.modified, clip.start, clip.stop, clip.downscale)


def read(out: str, name: str | None) -> list[SourceRow]:
    """Return the rows of the table ``name`` in the dataset's folder ``out``; none where the dataset has no table.

    Raises:
        UserError: it is missing or damaged.
    """
    if name is None:
        return []
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(out, name))))
        return [SourceRow(**row) for row in table.to_pylist()]
    except (OSError, TypeError, pa.ArrowException) as error:
        line = one_line(error)
        raise UserError(f"{out}: its table of sources {name} cannot be read ({line}); use --overwrite") from error


def write(out: str, rows: Iterable[SourceRow]) -> str:
    """Write the table, sorted by URI, under a name made of its content; return the name."""
    ordered = [vars(row) for row in sorted(rows, key=lambda row: row.uri)]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ordered, _schema()), stream, compression="zstd")
    name = f"sources-{hashlib.sha256(stream.getvalue()).hexdigest()[:12]}.parquet"
    storage.write_bytes(storage.join(out, name), stream.getvalue())
    return name


def _schema() -> pa.Schema:
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    fields = []
    for field in dataclasses.fields(SourceRow):
        options = [option for option in typing.get_args(field.type) or (field.type,) if option is not type(None)]
        fields.append(pa.field(field.name, kinds[options[0]], nullable=len(typing.get_args(field.type)) > 0))
    return pa.schema(fields)
