"""The destination of a result, checked before any work is done."""

import os
from collections.abc import Sequence

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.upscale import mark
from mana_dist.upscale.comparison import comparison_of
from mana_dist.upscale.config import Settings
from mana_dist.upscale.join import FORMATS
from mana_dist.upscale.picture_folder import TIMES_FILE


def check_destination(destination: str, source: str, settings: Settings) -> None:
    """Check that the result can be written.

    Raises:
        UserError: unknown suffix, a codec that the container does not take, the source itself, a folder that is missing
            or cannot be written, or one with other things in it, or too long a name; also of the comparison's files.
    """
    resolved = storage.resolve(destination)
    if settings.codec == "png":
        _check_folder(destination, resolved)
    else:
        _check_suffix(destination, settings)
    extras = comparison_of(destination) if settings.compare else ()
    for uri in (destination, *extras):
        if problem := storage.name_problem(uri):
            raise UserError(f"{uri}: {problem}; name a shorter one")
        _check_not_source(uri, source)
    if storage.is_remote(destination):
        return
    folder = os.path.dirname(resolved)
    if not os.path.isdir(folder):
        raise UserError(f"{destination}: there is no folder {folder}; make it first")
    files = extras if settings.codec == "png" else (destination, *extras)
    for uri in files:
        if os.path.isdir(storage.resolve(uri)):
            raise UserError(f"{uri}: is a folder; name a file")
    if not os.path.exists(resolved):  # else it may be done already, with nothing to write
        storage.check_writable(folder, destination)


def is_done(destination: str, marked: bytes, modified: float | None, settings: Settings, *, overwrite: bool) -> bool:
    """Return whether the result of this very job is there already.

    Args:
        destination: URI of the result.
        marked: its mark.
        modified: the source's last change, if its storage has it.
        settings: settings of the job.
        overwrite: whether anything else that is there may be replaced.

    Raises:
        UserError: something else is there: another job's result, or no result at all.
        OSError: it cannot be looked at.
    """
    extras = comparison_of(destination)
    there = [uri for uri in (destination, *extras) if not storage.name_problem(uri) and storage.exists(uri)]
    is_ours = destination in there and mark.read(destination) == marked and not _is_older(destination, modified)
    if is_ours and _is_whole(destination, settings) and (not settings.compare or len(there) == 1 + len(extras)):
        return True
    if there and not overwrite and not is_ours and not _is_own_comparison(destination, there, marked):
        raise UserError(
            f"{there[0]}: is there already, and another source, model, option or version made it, or something else "
            "altogether; name another file, or replace it with --overwrite"
        )
    return False


def clear_comparison(destination: str, marked: bytes) -> None:
    """Delete the comparison that another job left beside a result.

    Raises:
        OSError: it cannot be deleted.
    """
    extras = [uri for uri in comparison_of(destination) if not storage.name_problem(uri) and storage.exists(uri)]
    if not _is_own_comparison(destination, extras, marked):
        for uri in extras:
            storage.delete(uri)


def _is_own_comparison(destination: str, there: Sequence[str], marked: bytes) -> bool:
    """Return whether ``there`` holds only the comparison of the job, which was killed before its result was there."""
    video = comparison_of(destination)[0]
    return destination not in there and video in there and mark.read(video) == marked


def _is_whole(destination: str, settings: Settings) -> bool:
    return settings.codec != "png" or storage.exists(storage.join(destination, TIMES_FILE))


def _is_older(destination: str, modified: float | None) -> bool:
    """Return whether a source changed after the result was made."""
    last = TIMES_FILE if storage.is_folder(destination) else ""
    uri = storage.join(destination, last) if last else destination
    made = storage.stat(uri).modified if storage.exists(uri) else None
    return made is not None and modified is not None and modified > made


def _check_not_source(uri: str, source: str) -> None:
    resolved = storage.resolve(uri)
    if resolved == storage.resolve(source) or (
        os.path.exists(resolved) and os.path.exists(source) and os.path.samefile(resolved, source)
    ):
        raise UserError(f"{uri}: is the source itself; name another file")


def _check_suffix(destination: str, settings: Settings) -> None:
    if destination.endswith("/"):
        raise UserError(f"{destination}: a name that ends with / is a folder's; name a file")
    suffix = os.path.splitext(destination)[1].lower()
    if suffix not in FORMATS:
        raise UserError(f"{destination}: unknown kind of video {suffix or '(no suffix)'}; use {', '.join(FORMATS)}")
    if settings.codec == "ffv1" and suffix != ".mkv":
        raise UserError(f"{destination}: ffv1 goes into .mkv; name such a file or use --codec h264")
    if settings.codec == "av1" and suffix == ".mov":
        raise UserError(f"{destination}: av1 goes into .mp4 or .mkv; name such a file or use --codec h264")


def _check_folder(destination: str, resolved: str) -> None:
    if not destination.endswith("/") and os.path.splitext(resolved)[1].lower() in FORMATS:
        raise UserError(f"{destination}: --codec png writes a folder of pictures; name it without such a suffix")
    try:
        names = [uri.rsplit("/", 1)[-1] for uri in storage.list_folder(destination)]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UserError(f"{destination}: is a file; name a folder for the pictures") from error
    own = {TIMES_FILE, mark.FILE}
    # A remote folder that is not finished has no list of times yet.
    ours = not own.isdisjoint(names) and all(name in own or name.endswith(".png") for name in names)
    if names and not ours:
        raise UserError(f"{destination}: the folder is not empty; name a new one")
