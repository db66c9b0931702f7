"""The mark of a finished result: a digest of the job that made it, in the file's last bytes, where no player looks.

In MP4 and QuickTime it is a ``uuid`` box, in Matroska a ``Void`` element, in a folder of pictures a hidden file. It
holds nothing of the user's: neither names nor times.
"""

import hashlib
import json
import os
import struct
from dataclasses import asdict
from typing import BinaryIO
from uuid import UUID

from mana_dist import __version__, storage
from mana_dist.upscale.config import Settings

FILE = ".mana_dist"
"""Name of the mark in a folder of pictures."""
_OURS = UUID("0b4a1b5e-6d1c-4a53-9f0e-3c1d1f6a7e52").bytes
_LENGTH = 48  # of the mark: our identifier and a SHA-256
_SEGMENT = b"\x18\x53\x80\x67\x01"
_HEAD = 1024  # bytes that hold Matroska's header and the segment's beginning
_NOT_COUNTED = ("device", "memory", "segment", "compare", "threads")  # they move a grey level here and there at most


def mark(model_sha256: str, source_bytes: int | None, settings: Settings) -> bytes:
    """Return the mark of a job's result.

    Args:
        model_sha256: SHA-256 of the weights.
        source_bytes: the source's size, if its storage has it. Its name is left out, so that a copy elsewhere gives
            the same bytes.
        settings: those count that decide the result, but for a grey level here and there.
    """
    traits = settings.traits
    wanted = {name: value for name, value in asdict(settings).items() if name not in _NOT_COUNTED}
    for name in ("frames", "fps"):  # left out where unused, as in the marks of versions that did not have them
        if wanted[name] == getattr(Settings, name):
            del wanted[name]
    wanted |= {"crf": traits.crf if settings.crf is None else settings.crf, "preset": settings.preset or traits.preset}
    job = {"model": model_sha256, "source": source_bytes, "settings": wanted, "version": __version__}
    return _OURS + hashlib.sha256(json.dumps(job, sort_keys=True).encode()).digest()


def append(path: str, marked: bytes) -> None:
    """Append a mark to a finished file; its suffix decides the container."""
    with open(path, "r+b") as file:
        if path.lower().endswith(".mkv"):
            wrapped = bytes((0xEC, 0x80 | len(marked))) + marked
            _lengthen_segment(file, len(wrapped))
        else:
            wrapped = struct.pack(">I4s", 8 + len(marked), b"uuid") + marked
        file.seek(0, os.SEEK_END)
        file.write(wrapped)


def _lengthen_segment(file: BinaryIO, count: int) -> None:
    """Let Matroska's one segment reach to the file's new end; FFmpeg writes its size in seven bytes after a 1."""
    head = file.read(_HEAD)
    at = head.index(_SEGMENT) + len(_SEGMENT)
    size = int.from_bytes(head[at : at + 7])
    file.seek(at)
    file.write((size + count).to_bytes(7))


def read(uri: str) -> bytes | None:
    """Return the mark of the file or folder of pictures ``uri``; None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        if storage.is_folder(uri):
            data = storage.read_bytes(storage.join(uri, FILE))
        else:
            with storage.open_read(uri) as stream:
                stream.seek(max(stream.seek(0, os.SEEK_END) - _LENGTH, 0))
                data = stream.read(_LENGTH)
    except FileNotFoundError:
        return None
    return data if len(data) == _LENGTH and data.startswith(_OURS) else None
