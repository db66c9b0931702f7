"""The page's clips, each from its upload to its deletion, and the queue of those to be upscaled. No HTTP, no Ray."""

import asyncio
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from filelock import FileLock, Timeout

from mana_dist.console import log
from mana_dist.errors import UserError, one_line
from mana_dist.serve.config import ServeOptions
from mana_dist.serve.page import sample_clip
from mana_dist.serve.page.child import Report, run_child
from mana_dist.serve.windows import RefusedError

State = Literal["uploading", "reading", "ready", "waiting", "running", "done", "failed"]
Child = Callable[[dict[str, Any], Report, threading.Event, float], None]

FILES = {
    "poster.png": "poster.png",
    "result.mp4": "result.mp4",
    "compare.mp4": "result.mp4.compare.mp4",
    "compare.png": "result.mp4.compare.png",
}
"""The files of a clip that the page may have, and where they lie in its folder."""
SILENCE = 60.0
"""Seconds without a piece after which an upload is given up."""
_LOOK_SECONDS = 120.0
_LOOKS = 2  # clips that are looked at at a time
_FOLDER = "mana_dist-page-"
_SWEEP_SECONDS = 10.0
_NAME = 120  # characters of a clip's name


class Client(NamedTuple):
    """Who sent a clip: the browser, by its cookie, and the address that it has."""

    address: str
    browser: str


@dataclass
class _Job:
    """A clip."""

    id: str
    client: Client
    name: str
    folder: str
    since: float  # when it came into its state; in an upload, of the last piece
    state: State = "uploading"
    bytes: int = 0
    began: tuple[float, int] | None = None  # when the first frames were done, and how many
    stop: threading.Event = field(default_factory=threading.Event)
    facts: dict[str, Any] = field(default_factory=dict)  # as job_process tells them
    wanted: dict[str, Any] = field(default_factory=dict)  # as the person asked

    @property
    def source(self) -> str:
        suffix = re.search(r"\.[a-z0-9]{1,5}$", self.name.lower())  # raw streams are known by it
        return os.path.join(self.folder, f"source{suffix[0] if suffix else ''}")

    @property
    def result(self) -> str:
        return os.path.join(self.folder, "result.mp4")


class Desk:
    """Takes clips in, has them upscaled one at a time, first come, first served, and deletes them.

    Every method that takes a client or a clip's id may raise :class:`RefusedError`. Use as a context manager: leaving
    it stops all work and deletes everything.
    """

    def __init__(
        self,
        options: ServeOptions,
        models: Mapping[str, str],
        settings: Mapping[str, Any],
        child: Child = run_child,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a folder for the clips; nothing runs before :meth:`start_threads`.

        Args:
            options: the limits.
            models: those that people may choose, by the names that are shown; the first is the default.
            settings: of :class:`mana_dist.upscale.Settings`, for every clip.
            child: does a task of :mod:`mana_dist.serve.page.job_process`.
            clock: seconds.
        """
        self._options, self._models, self._settings = options, dict(models), dict(settings)
        self._child, self._clock = child, clock
        self._jobs: dict[str, _Job] = {}
        self._queue: list[_Job] = []
        self._changed = threading.Condition(threading.RLock())
        self._looks = threading.Semaphore(_LOOKS)
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        _delete_abandoned()
        self._folder = tempfile.mkdtemp(prefix=_FOLDER)
        self._lock = FileLock(os.path.join(self._folder, "lock"))
        self._lock.acquire()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_threads(self) -> "Desk":
        """Start to upscale what waits, and to delete what is over its time."""
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._work, self._watch)]
        for thread in self._threads:
            thread.start()
        return self

    def close(self) -> None:
        """Stop all work and delete everything."""
        with self._changed:
            self._closed.set()
            for id_ in list(self._jobs):
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
        shown = sample_clip.NAME if sample else _shown(name)
        if size > self._options.page_upload * 2**20:
            raise self._too_long(shown)
        with self._changed:
            for job in list(self._jobs.values()):
                if job.client.browser == client.browser and job.client.browser and job.state in _NOT_STARTED:
                    self.delete(job.id)
            self.sweep()
            held = [job for job in self._jobs.values() if job.client.address == client.address]
            if len(held) >= self._options.page_clips_each:
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{len(held)} clips of your address are here, the most for one; delete one or wait until it goes",
                )
            if len(self._jobs) >= self._options.page_clips or self._closed.is_set():
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE, "the server holds as many clips as it can; come again later"
                )
            id_ = secrets.token_urlsafe(16)
            job = _Job(id_, client, shown, os.path.join(self._folder, id_), self._clock())
            os.mkdir(job.folder)
            self._jobs[id_] = job
        if sample:
            self._look(job, sample=True)
        return id_

    def add(self, id_: str, piece: bytes) -> None:
        """Append a piece of an upload."""
        job = self._found(id_, "uploading")
        if job.bytes + len(piece) > self._options.page_upload * 2**20:
            self.delete(id_)
            raise self._too_long(job.name)
        try:
            with open(job.source, "ab") as file:
                file.write(piece)
        except OSError as error:  # full, or deleted meanwhile
            self.delete(id_)
            raise RefusedError(
                HTTPStatus.INSUFFICIENT_STORAGE, f"the server cannot keep it ({error.strerror})"
            ) from error
        job.bytes += len(piece)
        job.since = self._clock()

    def finish(self, id_: str) -> dict[str, Any]:
        """Look at an upload that is whole; one that cannot be upscaled is deleted.

        Returns:
            As :meth:`state`.
        """
        job = self._found(id_, "uploading")
        if not job.bytes:
            self.delete(id_)
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{job.name}: is empty")
        self._look(job)
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
            job = self._found(id_, "ready", "done", "failed")
            reason = ""
            if model not in self._models:
                reason = f"model {model}: there are {', '.join(self._models)}"
            elif not 0 <= first < stop <= job.facts["frames"]:
                reason = f"frames {first}:{stop}: {job.name} has the frames 0:{job.facts['frames']}"
            elif stop - first > self._options.page_frames:
                reason = (
                    f"frames {first}:{stop}: at most {self._options.page_frames} at a time, the server's page_frames"
                )
            if reason:
                raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
            if any(other.client == job.client for other in self._queue):
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS, "a clip of yours waits already; wait for it, or delete it"
                )
            self._remove_made(job)
            job.wanted = {"model": model, "first": first, "stop": stop}
            self._enter(job, "waiting")
            self._queue.append(job)
            self._changed.notify_all()
            return self.state(id_)

    def state(self, id_: str) -> dict[str, Any]:
        """Return what the page shows of a clip."""
        with self._changed:
            job = self._found(id_)
            shown = {"id": job.id, "name": job.name, "state": job.state, "bytes": job.bytes, **job.facts, **job.wanted}
            if job.state == "waiting":
                shown["ahead"] = self._queue.index(job) + any(other.state == "running" for other in self._jobs.values())
            if job.state == "running" and job.began:
                at, before = job.began
                done = job.facts["done"] - before
                if done:
                    shown["left"] = (job.facts["of"] - job.facts["done"]) * (self._clock() - at) / done
            if job.state in _KEPT:
                shown["deleted_in"] = max(job.since + self._options.page_keep - self._clock(), 0)
            if job.state == "done":
                shown["result_bytes"] = os.path.getsize(job.result)
            return shown

    def of_browser(self, client: Client) -> list[dict[str, Any]]:
        """Return the states of a browser's clips."""
        with self._changed:
            mine = [job.id for job in self._jobs.values() if client.browser and job.client.browser == client.browser]
            return [self.state(id_) for id_ in mine]

    def delete(self, id_: str) -> None:
        """Delete a clip and all that was made of it; if it is at work it is stopped."""
        with self._changed:
            job = self._found(id_)
            del self._jobs[id_]
            self._queue = [other for other in self._queue if other is not job]
            job.stop.set()
        shutil.rmtree(job.folder, ignore_errors=True)

    def read(self, id_: str, name: str, offset: int, count: int) -> tuple[int, bytes]:
        """Return the size of one of a clip's :data:`FILES`, and a piece of it."""
        job = self._found(id_)
        try:
            with open(os.path.join(job.folder, FILES[name]), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(offset)
                return size, file.read(count)
        except (KeyError, OSError) as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{job.name}: there is no {name} of it") from error

    def sweep(self) -> None:
        """Delete what is over its time."""
        with self._changed:
            for job in list(self._jobs.values()):
                age = self._clock() - job.since
                if (job.state in _KEPT and age > self._options.page_keep) or (
                    job.state == "uploading" and age > SILENCE
                ):
                    self.delete(job.id)

    def work_one(self) -> bool:
        """Upscale the clip whose turn it is; return whether there was one."""
        with self._changed:
            if not self._queue:
                return False
            job = self._queue.pop(0)
            self._enter(job, "running")
        wanted = job.wanted
        task = {
            "kind": "upscale",
            "source": job.source,
            "destination": job.result,
            "model": self._models[wanted["model"]],
            "tracking_uri": self._options.tracking_uri,
            "settings": {**self._settings, "frames": f"{wanted['first']}:{wanted['stop']}", "compare": True},
        }
        with self._ending(job, "done"):
            self._child(task, lambda values: self._report(job, values), job.stop, self._options.page_seconds)
        return True

    def _look(self, job: _Job, *, sample: bool = False) -> None:
        self._enter(job, "reading")
        poster = os.path.join(job.folder, FILES["poster.png"])
        pixels = self._options.max_pixels
        task = {"kind": "look", "source": job.source, "poster": poster, "pixels": pixels, "sample": sample}
        with self._looks, self._ending(job, "ready"):
            self._child(task, job.facts.update, job.stop, _LOOK_SECONDS)
            width, height = job.facts["width"], job.facts["height"]
            if width * height > pixels:
                more = f"more than {pixels} pixels, the server's max_pixels"
                raise UserError(f"{job.name}: frames of {width}x{height} have {more}")
        if reason := job.facts.get("error"):
            with suppress(RefusedError):
                self.delete(job.id)
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason)

    def _report(self, job: _Job, values: dict[str, Any]) -> None:
        with self._changed:
            job.facts |= values
            job.began = job.began or (self._clock(), job.facts["done"])

    @contextmanager
    def _ending(self, job: _Job, state: State) -> Iterator[None]:
        """Put a clip into ``state`` when its work is done, or note why it failed; of a deleted one nothing stays."""
        try:
            yield
        except UserError as error:
            state = "failed"
            self._remove_made(job)
            text = one_line(error).partition("; what is done stays in")[0].replace(job.source, job.name)
            job.facts["error"] = text.replace(job.folder + os.sep, "")
        except Exception:
            state = "failed"
            log.exception("a clip failed")
            job.facts["error"] = "the server failed on it; its log says more"
        finally:
            with self._changed:
                self._enter(job, state)
                if job.id not in self._jobs:
                    shutil.rmtree(job.folder, ignore_errors=True)

    def _enter(self, job: _Job, state: State) -> None:
        job.state, job.since = state, self._clock()

    def _remove_made(self, job: _Job) -> None:
        job.began, job.stop = None, threading.Event()
        for key in ("done", "of", "notes", "error", "out_width", "out_height"):
            job.facts.pop(key, None)
        with suppress(FileNotFoundError):  # deleted meanwhile
            for entry in os.scandir(job.folder):
                if entry.path not in (job.source, os.path.join(job.folder, FILES["poster.png"])):
                    shutil.rmtree(entry.path, ignore_errors=True) if entry.is_dir() else os.unlink(entry.path)

    def _too_long(self, name: str) -> RefusedError:
        most = f"{self._options.page_upload} MiB, the server's page_upload"
        return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{name}: is longer than {most}; cut it first")

    def _found(self, id_: str, *states: State) -> _Job:
        job = self._jobs.get(id_)
        if job is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such clip here; it was deleted, or its time was over")
        if states and job.state not in states:
            raise RefusedError(HTTPStatus.CONFLICT, f"{job.name}: is {job.state}")
        return job

    def _work(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed.is_set())
            self.work_one()

    def _watch(self) -> None:
        while not self._closed.wait(min(_SWEEP_SECONDS, self._options.page_keep)):
            self.sweep()


_NOT_STARTED = ("uploading", "reading", "ready")
_KEPT = ("ready", "done", "failed")


def in_threads(desk: Desk) -> Callable[..., Awaitable[Any]]:
    """Return a function that calls a desk's methods by their names, in threads: some wait for a clip's process."""
    threads = ThreadPoolExecutor(64, "page")

    async def ask(name: str, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, getattr(desk, name), *arguments)

    return ask


def _shown(name: str) -> str:
    """Return the last part of a file's name, as text."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(sign for sign in last if sign.isprintable()).strip()[-_NAME:] or "clip"


def _delete_abandoned() -> None:
    """Delete the folders that servers left which were killed."""
    for entry in os.scandir(tempfile.gettempdir()):
        lock = os.path.join(entry.path, "lock")
        if entry.name.startswith(_FOLDER) and os.path.isfile(lock):
            with suppress(Timeout, OSError), FileLock(lock, timeout=0):
                shutil.rmtree(entry.path, ignore_errors=True)
