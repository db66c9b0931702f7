"""Names of results, from those of their sources."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from mana_dist import storage
from mana_dist.errors import UserError, redacted
from mana_dist.footage import source_lists
from mana_dist.footage.expand import Clip


@dataclass(frozen=True)
class Output:
    """A source and where its result goes.

    Attributes:
        source: URI of the video.
        name: name of the result, relative to the folder of all results; for people too.
        uri: URI of the result.
        bytes: size of the source; None if a web server does not state it.
        modified: the source's last change, seconds since the epoch; None if a web server does not state it.
        key: name of the work on it, which stands for the result's name, the source as it is now, and all else that
            decides the result's bytes; empty until :meth:`keyed`.
    """

    source: str
    name: str
    uri: str
    bytes: int | None
    modified: float | None
    key: str = ""

    @property
    def family(self) -> str:
        """Prefix of the keys of all work on this result, whatever model and settings."""
        return self.key.rpartition("-")[0]

    def keyed(self, decisive: Mapping[str, Any]) -> "Output":
        """Return this with its key; ``decisive`` is what decides the bytes beside the source, as JSON."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", self.name).lstrip(".")[:60] or "video"
        source = {"uri": redacted(self.source), "bytes": self.bytes, "modified": self.modified}
        key = f"{readable}-{_digest(self.name)[:8]}-{_digest({'source': source, **decisive})[:12]}"
        return dataclasses.replace(self, key=key)


def outputs_of(clips: Sequence[Clip], arguments: Sequence[str], out: str, suffix: str) -> list[Output]:
    """Return the results of ``clips``: below ``out`` as the sources lie below the arguments that name them.

    Args:
        clips: videos, in the order of the arguments.
        arguments: local paths or URIs, as :func:`mana_dist.footage.expand.expand` takes them.
        out: URI of the folder.
        suffix: suffix of the results, with its dot; empty for folders.

    Raises:
        UserError: two results would have one name, or one would lie in the other.
    """
    bases = [_base(argument) for argument in arguments]
    made: dict[str, Output] = {}
    for clip in clips:
        name = os.path.splitext(_relative(clip.uri, bases))[0] + suffix
        output = Output(clip.uri, name, storage.join(out, name), clip.bytes, clip.modified)
        if name in made:
            raise UserError(
                f"{made[name].source} and {clip.uri} would both become {output.uri}; rename one, or upscale them with "
                "different --out"
            )
        made[name] = output
    for name, output in made.items():
        for folder in _folders_of(name):
            if folder in made:
                raise UserError(
                    f"{output.source} would go into {made[folder].uri}, the folder of the pictures of "
                    f"{made[folder].source}; upscale them with different --out"
                )
    return list(made.values())


def _folders_of(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def without_results(clips: Sequence[Clip], arguments: Sequence[str], out: str) -> list[Clip]:
    """Drop clips in the folder ``out``, if that lies among the sources: they are results.

    Raises:
        UserError: a source is itself named in ``out``, so it could be either.
    """
    for base in map(_base, arguments):
        if f"{base}/".startswith(f"{out}/"):
            raise UserError(f"--out: {out} holds the source {base}; name a folder of its own for the results")
    return [clip for clip in clips if not clip.uri.startswith(f"{out}/")]


def _base(argument: str) -> str:
    """Return the folder relative to which an argument's sources are named."""
    uri = storage.resolve(argument)
    if storage.has_wildcards(uri) and not storage.exists(uri):
        return storage.split_pattern(uri)[0]
    return uri.rpartition("/")[0] if source_lists.is_list(uri) else uri


def _relative(uri: str, bases: Sequence[str]) -> str:
    for base in bases:
        if uri.startswith(f"{base.rstrip('/')}/"):
            return _without_query(uri)[len(base.rstrip("/")) + 1 :]
    # Named itself, or by a list that lies elsewhere.
    path = unquote(_without_query(uri)) if storage.is_web(uri) else uri
    return path.rpartition("/")[2]


def _without_query(uri: str) -> str:
    """Drop a web address's query, which may hold secrets: results are named so."""
    return urlsplit(uri)._replace(query="", fragment="").geturl() if storage.is_web(uri) else uri


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
