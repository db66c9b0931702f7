"""Where the result goes: looked at before any work is done."""

import os

from mana_dist import storage
from mana_dist.errors import UserError
from mana_dist.upscale.compare import comparison_of
from mana_dist.upscale.join import FORMATS
from mana_dist.upscale.pictures import TIMES_FILE
from mana_dist.upscale.settings import Settings


def check_destination(destination: str, source: str, settings: Settings) -> None:
    """Whether the result could be written.

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
    storage.check_writable(folder, destination)


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
    if storage.is_remote(destination) or not os.path.exists(resolved):
        return
    if not os.path.isdir(resolved):
        raise UserError(f"{destination}: is a file; name a folder for the pictures")
    names = os.listdir(resolved)
    ours = TIMES_FILE in names and all(name == TIMES_FILE or name.endswith(".png") for name in names)
    if names and not ours:
        raise UserError(f"{destination}: the folder is not empty; name a new one")
