"""Segments of PNG pictures joined to a folder of them."""

import csv
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av

from mana_dist import storage
from mana_dist.storage.file_names import partial_prefix
from mana_dist.upscale import mark
from mana_dist.upscale.source_video import Survey
from mana_dist.upscale.timeline import Times
from mana_dist.video.containers import ALONE

TIMES_FILE = "timestamps.csv"
_PICTURE = re.compile(r"(\d{8,})\.png")


def join_pictures(
    survey: Survey,
    files: Sequence[str],
    times: Times,
    destination: str,
    scratch: str | None,
    check: Callable[[], None] = lambda: None,
    marked: bytes | None = None,
) -> None:
    """Write ``00000000.png``, ... and :data:`TIMES_FILE`, which comes last.

    Args:
        survey: survey of the source.
        files: URIs of the segments' files; each packet in them is a PNG file.
        times: times of the frames.
        destination: URI of the folder; a local one appears whole, in the place of what was there. Of a remote one
            :data:`TIMES_FILE` is deleted first; pictures of an earlier, longer video are deleted at the end.
        scratch: local folder for the unfinished one.
        check: called just before something appears at ``destination``; what it raises keeps it away.
        marked: the result's mark (:mod:`mana_dist.upscale.mark`); None: it gets none.

    Raises:
        OSError: it cannot be written.
    """
    remote = storage.is_remote(destination)
    final = storage.resolve(destination)
    partial = final
    if remote:
        check()
        if storage.exists(whole := storage.join(final, TIMES_FILE)):
            storage.delete(whole)
    else:
        hidden = f"{partial_prefix(os.path.basename(final))}{uuid.uuid4().hex[:8]}"
        partial = os.path.join(scratch or os.path.dirname(final), hidden)
    try:
        if marked is not None:
            storage.write_bytes(storage.join(partial, mark.FILE), marked)
        number = 0
        for number, picture in enumerate(_pictures_in(files), 1):
            if remote:
                check()
            storage.write_bytes(storage.join(partial, f"{number - 1:08}.png"), picture)
        if remote:
            _delete_beyond(final, number)
        storage.write_bytes(storage.join(partial, TIMES_FILE), _table(times, survey.time_base))
        if not remote:
            check()
            _replace(partial, final)
    finally:
        if not remote and os.path.isdir(partial):
            shutil.rmtree(partial)


def _pictures_in(files: Sequence[str]) -> Iterator[bytes]:
    for file in files:
        with av.open(storage.open_read(file), options=ALONE) as container:
            yield from (bytes(packet) for packet in container.demux(video=0) if packet.size)


def _delete_beyond(folder: str, count: int) -> None:
    for uri in storage.files_in(folder):
        match = _PICTURE.fullmatch(uri.rsplit("/", 1)[-1])
        if match and int(match[1]) >= count:
            storage.delete(uri)


def _table(times: Times, time_base: Fraction) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "pts", "time_base", "seconds"])
    for number, pts in enumerate(times.pts):
        table.writerow([f"{number:08}.png", pts, time_base, f"{float(pts * time_base):.6f}"])
    return text.getvalue().encode()


def _replace(partial: str, final: str) -> None:
    before = f"{partial}.before"
    if os.path.isdir(final):
        os.rename(final, before)
    os.rename(partial, final)
    if os.path.isdir(before):
        shutil.rmtree(before)
