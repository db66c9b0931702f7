"""Lists of sources: a URI on each line (``.txt``), a table (``.csv``), or a JSON object on each line (``.jsonl``)."""

import csv
import io
import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.video.frame_names import parse_frame_range

LIST_SUFFIXES = (".txt", ".csv", ".jsonl")
_KEYS = ("uri", "frames", "downscale")
_PAIR = ("hr", "lr")


@dataclass(frozen=True, slots=True)
class Entry:
    """A source that a user names, and the part of it to use."""

    uri: str  # a video, a folder, a pattern or a list; absolute
    start: int  # first frame to use
    stop: int | None  # frame before which to stop; None for the end
    downscale: int  # factor by which frames are shrunk
    origin: str  # where the user named it, for messages
    lr: str = ""  # of a pair, the clip of LR frames; ``uri`` is that of the HR frames


def is_list(uri: str) -> bool:
    """Return whether a file of this name is a list of sources."""
    return _suffix(uri) in LIST_SUFFIXES


def read_list(default: Entry) -> list[Entry]:
    """Return the entries of the list at ``default.uri``, in its order; ``default`` fills in what they leave out.

    ``.txt``: a URI on each line, spaces around it ignored; lines that begin with '#' are comments. ``.csv``: a header
    with ``uri`` and optionally ``frames`` (START:STOP) and ``downscale``; of pairs ``hr`` and ``lr`` in place of
    ``uri``. ``.jsonl``: objects with the same keys.
    A relative URI is relative to the list's folder.

    Raises:
        UserError: a wrong line.
    """
    uri = default.uri
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{uri}: not a list of sources ({error}); save it as UTF-8 text") from error
    rows = {".txt": _text_rows, ".csv": _csv_rows, ".jsonl": _json_rows}[_suffix(uri)]
    return [_entry(values, f"{uri}, line {line}", default) for line, values in rows(text, uri)]


def _suffix(uri: str) -> str:
    return os.path.splitext(urlsplit(uri).path if storage.is_web(uri) else uri)[1].lower()


def _text_rows(text: str, _: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, {"uri": line.strip()}


def _csv_rows(text: str, uri: str) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if "uri" not in header and not set(_PAIR).issubset(header):
            mend = f"begin the table with the line: {','.join(_KEYS)}, or, for pairs: {','.join(_PAIR)}"
            raise UserError(f"{uri}, line 1: no column uri; {mend}")
        for row in reader:
            if len(row) > len(header):
                mend = 'write "a, b" where a field has a comma'
                raise UserError(f"{uri}, line {reader.line_num}: more fields than columns; {mend}")
            if any(row):
                yield reader.line_num, {name: field for name, field in zip(header, row, strict=False) if field.strip()}
    except csv.Error as error:
        raise UserError(f"{uri}, line {reader.line_num}: not CSV ({error}); mend or delete the line") from error


def _json_rows(text: str, uri: str) -> Iterator[tuple[int, dict[str, object]]]:
    example = 'write one object a line, like {"uri": "a.mp4"}'
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UserError(f"{uri}, line {number}: not JSON ({error}); {example}") from error
        if not isinstance(values, dict):
            raise UserError(f"{uri}, line {number}: not an object; {example}")
        yield number, values


def _entry(values: Mapping[str, object], origin: str, default: Entry) -> Entry:
    is_pair = any(name in values for name in _PAIR)
    keys = (*_PAIR, "frames") if is_pair else _KEYS
    unknown = [name for name in values if name not in keys]
    if unknown:
        raise UserError(f"{origin}: no such key: {unknown[0]!r}; only {', '.join(keys)} can stand there")
    frames, lr = values.get("frames"), values.get("lr", "")
    uri = values.get("hr" if is_pair else "uri")
    if not isinstance(uri, str) or not uri or not isinstance(lr, str) or is_pair > bool(lr):
        raise UserError(f"{origin}: names no source; write its path or URI as {' and '.join(keys[: 1 + is_pair])}")
    start, stop = default.start, default.stop
    if frames is not None:
        try:
            start, stop = parse_frame_range(str(frames))
        except UserError as error:
            raise UserError(f"{origin}: {error}") from error
    downscale = default.downscale if values.get("downscale") is None else _whole(values["downscale"])
    if downscale < 1:
        raise UserError(f"{origin}: downscale {values['downscale']!r} must be a whole number, at least 1")
    return Entry(_absolute(uri, default.uri), start, stop, downscale, origin, lr and _absolute(lr, default.uri))


def _whole(value: object) -> int:
    """Return the whole number; 0 for anything else."""
    text = str(value).strip()
    return int(text) if text.isdecimal() else 0


def _absolute(uri: str, list_uri: str) -> str:
    if storage.is_remote(uri) or uri.startswith(("/", "~", "file://")):
        return storage.resolve(uri)
    if storage.is_web(list_uri):
        return urljoin(list_uri, uri)
    folder = posixpath.dirname(list_uri)
    while uri.startswith(("./", "../")):  # only at the beginning: elsewhere '..' may be part of an object's name
        step, _, uri = uri.partition("/")
        folder = posixpath.dirname(folder) if step == ".." else folder
    return storage.resolve(f"{folder}/{uri}")
