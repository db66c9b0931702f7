"""What a user's ``--source`` stands for, and which of it the ingest can use."""

from collections.abc import Iterable

from mana_dist import storage
from mana_dist.data.manifest import Rejected
from mana_dist.data.sources import clips_at
from mana_dist.data.video import frame_files, probe
from mana_dist.errors import UserError


def expand(arguments: Iterable[str]) -> tuple[list[str], list[Rejected]]:
    """The clips that the URIs in ``arguments`` stand for, each once, in order, and what stands for nothing.

    :func:`mana_dist.data.sources.clips_at` says what a folder stands for.
    """
    clips: dict[str, None] = {}
    rejected: list[Rejected] = []
    for argument in arguments:
        uri = storage.resolve(argument)
        try:
            found = clips_at(uri)
        except OSError as error:
            rejected.append(Rejected(uri, f"cannot be read ({error})"))
            continue
        clips |= dict.fromkeys(found)
        if not found:
            nothing = "no videos and no PNG or JPEG frames in this folder or below"
            reason = nothing if storage.exists(uri) else "does not exist"
            rejected.append(Rejected(uri, reason))
    return list(clips), rejected


def size_of(uri: str) -> int:
    """Bytes of the file at ``uri``, or of all frames of the folder."""
    if storage.is_folder(uri):
        filesystem, _ = storage.filesystem(uri)
        infos = filesystem.get_file_info([storage.filesystem(file)[1] for file in frame_files(uri)])
    else:
        filesystem, path = storage.filesystem(uri)
        infos = [filesystem.get_file_info(path)]
    return sum(info.size or 0 for info in infos)


def check_header(uri: str, frames: int, start: int, stop: int | None, least_side: int) -> int | None:
    """Refuse, by its header and first frame alone, a clip that can give no sample.

    Args:
        uri: the clip.
        frames: frames that a sample needs.
        start: first frame to use.
        stop: first frame not to use any more.
        least_side: least width and height, pixels.

    Returns:
        The frames between ``start`` and ``stop`` by the header's count; None where it has none.

    Raises:
        UserError: unreadable, too small, or too few frames.
    """
    info = probe(uri)
    if min(info.width, info.height) < least_side:
        raise UserError(f"{uri}: {info.width}x{info.height} is too small; both sides must be at least {least_side}")
    if info.frames is None:
        return None
    used = max(0, (info.frames if stop is None else min(info.frames, stop)) - start)
    if used < frames:
        raise UserError(too_short(uri, used, frames))
    return used


def too_short(uri: str, frames: int, needed: int) -> str:
    """The reason for which a clip of too few frames is refused."""
    return f"{uri}: only {frames} frames in the range asked for; a sample needs {needed}"
