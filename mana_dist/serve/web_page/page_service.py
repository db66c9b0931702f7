"""The page's clips, each from its upload to its deletion, and the queue of those to be upscaled. No HTTP, no Ray."""

import asyncio
import functools
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from filelock import FileLock, Timeout

from mana_dist.console import log
from mana_dist.errors import UserError, one_line
from mana_dist.serve.config import ServeOptions
from mana_dist.serve.web_page import sample_clip
from mana_dist.serve.web_page.clip import FILES, Client, Clip, State, shown_name
from mana_dist.serve.web_page.run_clip_job import Report, run_clip_job
from mana_dist.serve.windows import RefusedError
from mana_dist.upscale.config import ALL_FRAMES

Child = Callable[[dict[str, Any], Report, threading.Event, float], None]

SILENCE = 60.0
"""Seconds without a piece after which an upload is given up."""
_INSPECT_SECONDS = 120.0
_INSPECTIONS_AT_ONCE = 2  # clips that are looked at at a time
_FOLDER = "mana_dist-page-"
_SWEEP_SECONDS = 10.0
_NOT_STARTED = ("uploading", "reading", "ready")
_KEPT = ("ready", "done", "failed")


class PageService:
    """Takes clips in, has them upscaled one at a time, first come, first served, and deletes them.

    Every method that takes a client or a clip's id may raise :class:`RefusedError`. Use as a context manager: leaving
    it stops all work and deletes everything.
    """

    def __init__(
        self,
        options: ServeOptions,
        models: Mapping[str, str],
        settings: Mapping[str, Any],
        child: Child = run_clip_job,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a folder for the clips; nothing runs before :meth:`start_threads`.

        Args:
            options: the limits.
            models: those that people may choose, by the names that are shown; the first is the default.
            settings: of :class:`mana_dist.upscale.Settings`, for every clip.
            child: does a task of :mod:`mana_dist.serve.web_page.clip_job`.
            clock: seconds.
        """
        self._options, self._models, self._settings = options, dict(models), dict(settings)
        self._hidden = {model: name for name, model in models.items()}
        self._child, self._clock = child, clock
        self._clips: dict[str, Clip] = {}
        self._queue: list[Clip] = []
        self._changed = threading.Condition(threading.RLock())
        self._inspections = threading.Semaphore(_INSPECTIONS_AT_ONCE)
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        _delete_abandoned()
        self._folder = tempfile.mkdtemp(prefix=_FOLDER)
        self._lock = FileLock(os.path.join(self._folder, "lock"))
        self._lock.acquire()

    def __enter__(self) -> "PageService":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_threads(self) -> "PageService":
        """Start to upscale what waits, and to delete what is over its time."""
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._work, self._watch)]
        for thread in self._threads:
            thread.start()
        return self

    def close(self) -> None:
        """Stop all work and delete everything."""
        with self._changed:
            self._closed.set()
            for id_ in list(self._clips):
                self.delete(id_)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def about(self) -> dict[str, Any]:
        """Return what people may choose, and the limits."""
        options = self._options
        return {
            "models": list(self._models),
            "upload": options.page_upload * 2**20,
            "frames": options.page_frames,
            "pixels": options.max_pixels,
            "seconds": options.page_seconds,
            "keep": options.page_keep,
        }

    def create(self, client: Client, name: str, size: int = 0, sample: bool = False) -> str:
        """Make room for a clip; one of the same browser that was not started yet is deleted.

        Args:
            client: whose.
            name: of its file; shown, and nothing else.
            size: bytes, as far as the client says.
            sample: whether it is the page's own clip, which is ready then.

        Returns:
            The clip's id, a secret.
        """
        shown = sample_clip.NAME if sample else shown_name(name)
        if size > self._options.page_upload * 2**20:
            raise self._too_long(shown)
        with self._changed:
            for clip in list(self._clips.values()):
                if clip.client.browser == client.browser and clip.client.browser and clip.state in _NOT_STARTED:
                    self.delete(clip.id)
            self.sweep()
            held = [clip for clip in self._clips.values() if clip.client.address == client.address]
            if len(held) >= self._options.page_clips_each:
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{len(held)} clips of your address are here, the most for one; delete one or wait until it goes",
                )
            if len(self._clips) >= self._options.page_clips or self._closed.is_set():
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE, "the server holds as many clips as it can; come again later"
                )
            id_ = secrets.token_urlsafe(16)
            clip = Clip(id_, client, shown, os.path.join(self._folder, id_), self._clock())
            os.mkdir(clip.folder)
            self._clips[id_] = clip
        if sample:
            self._inspect(clip, sample=True)
        return id_

    def add(self, id_: str, piece: bytes) -> None:
        """Append a piece of an upload."""
        clip = self._found(id_, "uploading")
        if clip.bytes + len(piece) > self._options.page_upload * 2**20:
            self.delete(id_)
            raise self._too_long(clip.name)
        try:
            with open(clip.source, "ab") as file:
                file.write(piece)
        except OSError as error:  # full, or deleted meanwhile
            self.delete(id_)
            raise RefusedError(
                HTTPStatus.INSUFFICIENT_STORAGE, f"the server cannot keep it ({error.strerror})"
            ) from error
        clip.bytes += len(piece)
        clip.since = self._clock()

    def finish(self, id_: str) -> dict[str, Any]:
        """Look at an upload that is whole; one that cannot be upscaled is deleted.

        Returns:
            As :meth:`state`.
        """
        clip = self._found(id_, "uploading")
        if not clip.bytes:
            self.delete(id_)
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{clip.name}: is empty")
        self._inspect(clip)
        return self.state(id_)

    def start(self, id_: str, model: str, first: int, stop: int) -> dict[str, Any]:
        """Let a clip wait for its turn; what was made of it before is deleted.

        Args:
            id_: the clip's.
            model: a name of :meth:`about`.
            first: first frame.
            stop: first frame not wanted any more.

        Returns:
            As :meth:`state`.
        """
        with self._changed:
            clip = self._found(id_, "ready", "done", "failed")
            reason = ""
            if model not in self._models:
                reason = f"model {model}: there are {', '.join(self._models)}"
            elif not 0 <= first < stop <= clip.facts["frames"]:
                reason = f"frames {first}:{stop}: {clip.name} has the frames 0:{clip.facts['frames']}"
            elif stop - first > self._options.page_frames:
                reason = (
                    f"frames {first}:{stop}: at most {self._options.page_frames} at a time, the server's page_frames"
                )
            if reason:
                raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
            if any(other.client == clip.client for other in self._queue):
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS, "a clip of yours waits already; wait for it, or delete it"
                )
            self._remove_made(clip)
            clip.wanted = {"model": model, "first": first, "stop": stop}
            self._enter(clip, "waiting")
            self._queue.append(clip)
            self._changed.notify_all()
            return self.state(id_)

    def state(self, id_: str) -> dict[str, Any]:
        """Return what the page shows of a clip."""
        with self._changed:
            clip = self._found(id_)
            shown = {
                "id": clip.id,
                "name": clip.name,
                "state": clip.state,
                "bytes": clip.bytes,
                **clip.facts,
                **clip.wanted,
            }
            if clip.state == "waiting":
                shown["ahead"] = self._queue.index(clip) + any(
                    other.state == "running" for other in self._clips.values()
                )
            if clip.state == "running" and clip.began:
                at, before = clip.began
                done = clip.facts["done"] - before
                if done:
                    shown["left"] = (clip.facts["of"] - clip.facts["done"]) * (self._clock() - at) / done
            if clip.state in _KEPT:
                shown["deleted_in"] = max(clip.since + self._options.page_keep - self._clock(), 0)
            if clip.state == "done":
                shown["result_bytes"] = os.path.getsize(clip.result)
            return shown

    def of_browser(self, client: Client) -> list[dict[str, Any]]:
        """Return the states of a browser's clips."""
        with self._changed:
            return [self.state(clip.id) for clip in self._clips.values() if clip.client.browser == client.browser != ""]

    def delete(self, id_: str) -> None:
        """Delete a clip and all that was made of it; if it is at work it is stopped."""
        with self._changed:
            clip = self._found(id_)
            del self._clips[id_]
            self._queue = [other for other in self._queue if other is not clip]
            clip.stop.set()
        shutil.rmtree(clip.folder, ignore_errors=True)

    def read(self, id_: str, name: str, offset: int, count: int) -> tuple[int, bytes]:
        """Return the size of one of a clip's :data:`FILES`, and a piece of it."""
        clip = self._found(id_)
        try:
            with open(os.path.join(clip.folder, FILES[name]), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(offset)
                return size, file.read(count)
        except (KeyError, OSError) as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{clip.name}: there is no {name} of it") from error

    def sweep(self) -> None:
        """Delete what is over its time."""
        with self._changed:
            for clip in list(self._clips.values()):
                age = self._clock() - clip.since
                if (clip.state in _KEPT and age > self._options.page_keep) or (
                    clip.state == "uploading" and age > SILENCE
                ):
                    self.delete(clip.id)

    def work_one(self) -> bool:
        """Upscale the clip whose turn it is; return whether there was one."""
        with self._changed:
            if not self._queue:
                return False
            clip = self._queue.pop(0)
            self._enter(clip, "running")
        wanted = clip.wanted
        # All of them as the command without --frames: with the sound, and with the same mark in the file.
        whole = (wanted["first"], wanted["stop"]) == (0, clip.facts["frames"])
        frames = ALL_FRAMES if whole else f"{wanted['first']}:{wanted['stop']}"
        task = {
            "kind": "upscale",
            "source": clip.source,
            "destination": clip.result,
            "model": self._models[wanted["model"]],
            "tracking_uri": self._options.tracking_uri,
            "settings": {**self._settings, "frames": frames, "compare": True},
        }
        with self._ending(clip, "done"):
            self._child(task, lambda values: self._report(clip, values), clip.stop, self._options.page_seconds)
        return True

    def _inspect(self, clip: Clip, *, sample: bool = False) -> None:
        self._enter(clip, "reading")
        poster = os.path.join(clip.folder, FILES["poster.png"])
        pixels = self._options.max_pixels
        task = {"kind": "inspect", "source": clip.source, "poster": poster, "pixels": pixels, "sample": sample}
        with self._inspections, self._ending(clip, "ready"):
            self._child(task, clip.facts.update, clip.stop, _INSPECT_SECONDS)
            width, height = clip.facts["width"], clip.facts["height"]
            if width * height > pixels:
                more = f"more than {pixels} pixels, the server's max_pixels"
                raise UserError(f"{clip.name}: frames of {width}x{height} have {more}")
        if reason := clip.facts.get("error"):
            with suppress(RefusedError):
                self.delete(clip.id)
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)

    def _report(self, clip: Clip, values: dict[str, Any]) -> None:
        with self._changed:
            clip.facts |= values
            if "done" in values and clip.began is None:
                clip.began = (self._clock(), values["done"])

    @contextmanager
    def _ending(self, clip: Clip, state: State) -> Iterator[None]:
        """Put a clip into ``state`` when its work is done, or note why it failed; of a deleted one nothing stays."""
        try:
            yield
        except UserError as error:
            state = "failed"
            self._remove_made(clip)
            text = one_line(error).partition("; what is done stays in")[0]
            hidden = {clip.source: clip.name, clip.folder + os.sep: "", **self._hidden}
            clip.facts["error"] = functools.reduce(lambda line, pair: line.replace(*pair), hidden.items(), text)
        except Exception:
            state = "failed"
            log.exception("a clip failed")
            clip.facts["error"] = "the server failed on it; its log says more"
        finally:
            with self._changed:
                self._enter(clip, state)
                if clip.id not in self._clips:
                    shutil.rmtree(clip.folder, ignore_errors=True)

    def _enter(self, clip: Clip, state: State) -> None:
        clip.state, clip.since = state, self._clock()

    def _remove_made(self, clip: Clip) -> None:
        clip.began, clip.stop = None, threading.Event()
        for key in ("done", "of", "notes", "error", "out_width", "out_height"):
            clip.facts.pop(key, None)
        with suppress(FileNotFoundError):  # deleted meanwhile
            for entry in os.scandir(clip.folder):
                if entry.path not in (clip.source, os.path.join(clip.folder, FILES["poster.png"])):
                    shutil.rmtree(entry.path, ignore_errors=True) if entry.is_dir() else os.unlink(entry.path)

    def _too_long(self, name: str) -> RefusedError:
        most = f"{self._options.page_upload} MiB, the server's page_upload"
        return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{name}: is longer than {most}; cut it first")

    def _found(self, id_: str, *states: State) -> Clip:
        clip = self._clips.get(id_)
        if clip is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such clip here; it was deleted, or its time was over")
        if states and clip.state not in states:
            raise RefusedError(HTTPStatus.CONFLICT, f"{clip.name}: is {clip.state}")
        return clip

    def _work(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed.is_set())
            self.work_one()

    def _watch(self) -> None:
        while not self._closed.wait(min(_SWEEP_SECONDS, self._options.page_keep)):
            self.sweep()


def in_threads(service: PageService) -> Callable[..., Awaitable[Any]]:
    """Return a function that calls a service's methods by their names, in threads: some wait for a clip's process."""
    threads = ThreadPoolExecutor(64, "page")

    async def call(name: str, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, getattr(service, name), *arguments)

    return call


def _delete_abandoned() -> None:
    """Delete the folders that servers left which were killed."""
    for entry in os.scandir(tempfile.gettempdir()):
        lock = os.path.join(entry.path, "lock")
        if entry.name.startswith(_FOLDER) and os.path.isfile(lock):
            with suppress(Timeout, OSError), FileLock(lock, timeout=0):
                shutil.rmtree(entry.path, ignore_errors=True)
