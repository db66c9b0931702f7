"""Folders of frames, and the names of clips."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import unquote, urlsplit

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.video.containers import VIDEO_SUFFIXES
from mana_dist.video.frame_names import check_one_clip, natural_key
from mana_dist.video.frame_stream import NumberedFrame
from mana_dist.video.picture_files import to_frame

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg")

_logger = logging.getLogger(__name__)


def is_folder(uri: str) -> bool:
    """Return whether ``uri`` is a folder.

    Raises:
        UserError: the storage cannot be reached.
    """
    try:
        return storage.is_folder(uri)
    except OSError as error:
        raise UserError(f"{uri}: cannot be read ({error})") from error


def clip_name(uri: str) -> str:
    """Return a clip's short name, from its URI alone: a video's file name without its suffix, a folder's name."""
    if storage.is_web(uri):  # without its query, which may hold secrets
        uri = unquote(urlsplit(uri).path)
    name = _base(uri.rstrip("/"))
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def frame_files(uri: str) -> list[str]:
    """Return the URIs of the PNG and JPEG files directly in the folder ``uri``, by name, numbers in names by value.

    Raises:
        UserError: there are two files for one frame, or the frames of two clips, mixed.
        OSError: the folder cannot be read.
    """
    files = [file for file in storage.files_in(uri) if file.lower().endswith(FRAME_SUFFIXES)]
    shown = [file for file in files if not _base(file).startswith(".")]
    check_one_clip(uri, map(_base, shown))
    return sorted(shown, key=lambda file: natural_key(_base(file)))


def folder_frames(
    uri: str,
    files: Sequence[str],
    start: int = 0,
    stop: int | None = None,
    lost: Callable[[str], None] = lambda _: None,
) -> Iterator[NumberedFrame]:
    """Read the frames of a folder, numbered by their place among ``files``.

    A picture that is missing or cannot be read is left out, with a line in the log. Sizes may change.

    Args:
        uri: the folder.
        files: the pictures' names in it, in order.
        start: first frame, from 0.
        stop: first frame not wanted any more.
        lost: called with the name of each picture that is left out.

    Raises:
        UserError: not one of them can be read.
        OSError: the storage failed.
    """
    trouble: UserError | None = None
    count = 0
    for number, file in list(enumerate(files))[start:stop]:
        picture = storage.join(uri, file)
        try:
            frame = to_frame(storage.read_bytes(picture), picture)
        except FileNotFoundError:
            trouble = UserError(f"{picture}: no such file")
        except UserError as error:
            trouble = error
        else:
            yield NumberedFrame(number, frame)
            count += 1
            continue
        _logger.warning("%s", trouble)
        lost(file)
    if trouble is not None and count == 0:
        raise trouble


def _base(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
