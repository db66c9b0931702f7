"""A service whose clips are looked at and upscaled by nobody, a page in front of it, and what its clients send."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette

from mana_dist.errors import UserError
from mana_dist.serve import ServeOptions
from mana_dist.serve.web_page.clip import Client
from mana_dist.serve.web_page.page_service import PageService, in_threads
from mana_dist.serve.web_page.routes import PageBackend, routes
from mana_dist.serve.web_page.run_clip_job import Report
from tests.ports import free_ports

FACTS = {"width": 48, "height": 32, "frames": 6, "rate": 25.0}
ANNE, BERT = Client("10.0.0.1", "anne"), Client("10.0.0.2", "bert")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Work:
    """What is done in place of a process: notes the tasks, and fails where an error was set."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.error = ""
        self.facts = dict(FACTS)
        self.during: Callable[[], object] = lambda: None
        self.compare: Path | None = None  # a video to look at

    def __call__(self, task: dict[str, Any], report: Report, stop: threading.Event, seconds: float) -> None:
        self.tasks.append(task)
        if self.error:
            raise UserError(self.error.format(**task))
        if task["kind"] == "inspect":
            picture = Image.new("RGB", (48, 32))
            picture.save(task["poster"])
            report(dict(self.facts))
            return
        report({"done": 1, "of": 4})
        self.during()
        if stop.is_set():
            raise UserError("it was stopped")
        os.makedirs(os.path.dirname(task["destination"]), exist_ok=True)  # a process may write on a little
        for suffix in ("", ".compare.mp4"):
            with open(task["destination"] + suffix, "w", encoding="utf-8") as file:
                file.write(f"made of {task['settings']['frames']}")
        if self.compare:
            shutil.copy(self.compare, task["destination"] + ".compare.mp4")
        report({"done": 4, "of": 4, "out_width": 192, "out_height": 128, "notes": []})


def service_of(work: Any, clock: Any = time.monotonic, **options: Any) -> PageService:
    return PageService(ServeOptions(page=True, **options), {"first": "models/a", "second": "models/b"}, {}, work, clock)


def bring(service: PageService, client: Client, name: str = "clip.mp4", data: bytes = b"frames") -> str:
    """A clip that is ready."""
    clip = service.create(client, name)
    service.add(clip, data)
    assert service.finish(clip)["state"] == "ready"
    return clip


@contextmanager
def served(service: PageService, client_header: str | None = None) -> Iterator[str]:
    """The page's address, as long as the context is open."""
    backend = PageBackend(in_threads(service), client_header)
    (port,) = free_ports(1)
    app = Starlette(routes=routes(lambda: backend))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
