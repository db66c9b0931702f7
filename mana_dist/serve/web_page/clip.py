"""A clip that somebody brought to the page: whose it is, how far it is, and where its files are."""

import os
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

State = Literal["uploading", "reading", "ready", "waiting", "running", "done", "failed"]

FILES = {
    "poster.png": "poster.png",
    "result.mp4": "result.mp4",
    "compare.mp4": "result.mp4.compare.mp4",
}
"""The files of a clip that the page may have, and where they lie in its folder."""
_NAME = 120  # characters of a name


class Client(NamedTuple):
    """Who sent a clip: the browser, by its cookie, and the address that it has."""

    address: str
    browser: str


@dataclass
class Clip:
    """A clip.

    Attributes:
        id: a secret: who knows it may do all with the clip.
        client: whose.
        name: of its file; shown, and nothing else.
        folder: with all its files.
        since: when it came into its state; in an upload, of the last piece.
        state: how far it is.
        bytes: of the upload so far.
        began: when the first frames were done, and how many.
        stop: set to end the work on it.
        facts: what :mod:`mana_dist.serve.web_page.clip_job` says of it.
        wanted: the model and the frames that the person asked for.
    """

    id: str
    client: Client
    name: str
    folder: str
    since: float
    state: State = "uploading"
    bytes: int = 0
    began: tuple[float, int] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    facts: dict[str, Any] = field(default_factory=dict)
    wanted: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The path of what was uploaded."""
        suffix = re.search(r"\.[a-z0-9]{1,5}$", self.name.lower())  # raw streams are known by it
        return os.path.join(self.folder, f"source{suffix[0] if suffix else ''}")

    @property
    def result(self) -> str:
        """The path of the upscaled video."""
        return os.path.join(self.folder, FILES["result.mp4"])


def shown_name(name: str) -> str:
    """Return the last part of a file's name, as text."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(sign for sign in last if sign.isprintable()).strip()[-_NAME:] or "clip"
