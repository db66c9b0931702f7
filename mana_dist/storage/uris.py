"""URIs of files, taken apart and put together without a request: local paths and anything with a scheme.

After ``s3://`` and ``gs://`` every character is part of the name: spaces, '#', '?', '%', '..'. Only ``http://`` and
``https://`` URLs have a query and escapes.
"""

import os
import re

from mana_dist.errors import UserError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WILDCARD = re.compile(r"[*?[]")


def is_remote(uri: str) -> bool:
    """Return whether ``uri`` has a scheme other than ``file``."""
    return _SCHEME.match(uri) is not None and not uri.startswith("file://")


def is_web(uri: str) -> bool:
    """Return whether ``uri`` is a URL of a web server."""
    return uri.startswith(("http://", "https://"))


def resolve(uri: str) -> str:
    """Return an absolute local path, also for ``file://``, or the remote URI without slashes at its end."""
    if is_web(uri):
        return uri
    if is_remote(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def is_missing(uri: str) -> bool:
    """Return whether ``uri`` is a local path that leads nowhere; asks no server, so what is remote is never missing."""
    return not is_remote(uri) and not os.path.exists(resolve(uri))


def join(uri: str, *parts: str) -> str:
    """Return ``uri`` and ``parts`` with a single slash between them."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def split(uri: str) -> tuple[str, str, str]:
    """Return scheme, bucket and key of a remote URI, nothing of it decoded."""
    scheme, _, location = uri.partition("://")
    bucket, _, key = location.partition("/")
    return scheme, bucket, key


def has_wildcards(uri: str) -> bool:
    """Return whether the path in ``uri`` has '*', '?' or '[' and so may be a pattern."""
    return not is_web(uri) and _WILDCARD.search(uri) is not None


def split_pattern(uri: str) -> tuple[str, re.Pattern[str]]:
    """Return the folder that contains all matches of a pattern like ``s3://b/films/*/[ab]?.mp4``, and the rest of it.

    '*' and '?' match within a name, '**' any number of folders. A wildcard matches no name that begins with a dot,
    unless the pattern has a dot there.

    Returns:
        The folder's URI, and an expression that matches whole paths relative to it (``re.Pattern.fullmatch``).

    Raises:
        UserError: not a pattern.
    """
    from fsspec.utils import glob_translate

    parts = resolve(uri).split("/")
    literal = next(index for index, part in enumerate(parts) if _WILDCARD.search(part))
    folder, pattern = "/".join(parts[:literal]), "/".join(parts[literal:])
    if is_remote(uri) and literal < 3:
        raise UserError(f"{uri}: the bucket's name must stand without wildcards")
    visible = "" if "/." in f"/{pattern}" else r"(?!(?s:.*/)?\.)"
    try:
        return folder or "/", re.compile(visible + glob_translate(pattern))
    except (ValueError, re.error) as error:
        raise UserError(f"{uri}: not a pattern that can be matched ({error})") from error
