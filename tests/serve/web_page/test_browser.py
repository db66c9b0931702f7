"""A person with a video, in a real browser: from the clip to the downloaded result, which is the command's."""

import glob
import io
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import urllib3
from PIL import Image

from mana_dist.registry import model_folder
from mana_dist.serve import ServeOptions
from mana_dist.serve.web_page.page_service import PageService
from mana_dist.upscale import Settings, upscale
from tests.ports import free_ports
from tests.serve.models import CONFIG, tiny_model
from tests.serve.web_page.servers import Work, served, service_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

TIMES = "\N{MULTIPLICATION SIGN}"
SETTINGS = {"precision": "fp32", "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a clip of six frames, from which black and white take turns."""
    folder = tmp_path_factory.mktemp("place")
    model_folder.save(str(folder / "tiny"), tiny_model().state_dict(), CONFIG)
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height = 48, 32
        for number in range(6):
            rows, columns = np.mgrid[:32, :48]
            pixels = np.stack([rows * 7 + number * 20, columns * 5, rows + columns], axis=2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    return folder


@pytest.fixture
def opened(browser: "Browser") -> Iterator["Page"]:
    """A page; at the end it must have complained of nothing, and asked no other server."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(600_000)
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    yield page
    page.close()
    assert [text for text in said if "the server responded with a status of 4" not in text] == []
    assert {re.sub(r":\d+/.*", "", url) for url in asked if not url.startswith(("data:", "blob:"))} <= {
        "http://127.0.0.1"
    }


def upscaled(page: "Page", url: str, place: Path) -> Path:
    """What a person downloads who drops the clip, takes the model and the frames 1 to 4, and waits."""
    page.goto(url)
    page.locator("#file").set_input_files(place / "clip.mp4")
    page.get_by_text(f"48 {TIMES} 32, 6 frames").wait_for(timeout=600_000)
    page.get_by_label("Model").select_option("tiny")
    for label, value in (("first frame", "1"), ("how many frames", "4")):
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_label(label, exact=True).press("Tab")
    page.get_by_role("button", name="Upscale").click()
    link = page.get_by_role("link", name="Download")
    link.wait_for(timeout=600_000)
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "clip-128p.mp4"
    return Path(download.value.path())


def check_result(page: "Page", url: str, place: Path, tmp_path: Path) -> None:
    """The download is the command's file, and the comparison plays both."""
    result = upscaled(page, url, place)
    expected = tmp_path / "out.mp4"
    settings = Settings(frames="1:5", **SETTINGS)  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    upscale(
        str(place / "clip.mp4"), str(expected), str(place / "tiny"), settings, progress=lambda *step: seen.append(step)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.read_bytes() == expected.read_bytes()
    canvas = page.locator("canvas")
    page.wait_for_selector("canvas[data-drawn]:not([data-drawn=''])")
    assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [192, 128]


def test_the_download_is_the_commands_result(opened: "Page", place: Path, tmp_path: Path) -> None:
    with (
        PageService(ServeOptions(page=True), {"tiny": str(place / "tiny")}, SETTINGS).start_threads() as service,
        served(service) as url,
    ):
        check_result(opened, url, place, tmp_path)
        opened.get_by_role("button", name="Delete now").click()
        opened.get_by_text("Drop a video here").wait_for()
        assert service._clips == {}


@pytest.mark.slow
def test_so_it_is_on_the_serve_app(opened: "Page", place: Path, tmp_path: Path) -> None:
    from mana_dist import ray_runtime

    ray_runtime.start_ray(cpus=3)
    import ray
    from ray import serve

    from mana_dist.serve import app

    (port,) = free_ports(1)
    try:
        serve.start(http_options={"port": port})
        serve.run(app(ServeOptions(model=str(place / "tiny"), precision="fp32", page=True, page_upload=1)))
        url = f"http://127.0.0.1:{port}"
        check_result(opened, url, place, tmp_path)
        clip = os.path.join(tempfile.gettempdir(), "mana_dist-page-*", opened.url.partition("#")[2])
        assert len(glob.glob(clip)) == 1
        too_long = urllib3.request(
            "POST",
            f"{url}/page/clips?name=x",
            body=bytes(2**20 + 1),
            headers={"Content-Type": "application/octet-stream"},
        )
        line = "x: is longer than 1 MiB, the server's page_upload; cut it first"
        assert (too_long.status, too_long.json()) == (413, {"detail": line})
        assert urllib3.request("GET", f"{url}/healthz", timeout=300).json()["status"] == "ok"
        assert urllib3.request("GET", f"{url}/docs", timeout=300).status == 404  # FastAPI's, which needs the internet
    finally:
        serve.shutdown()
        ray.shutdown()
    assert glob.glob(clip) == []


@pytest.fixture
def work(place: Path, tmp_path: Path) -> Work:
    """The comparison of a result, its left half black and its right half white, in place of the work."""
    work = Work()
    made = tmp_path / "made.mp4"
    with av.open(str(made), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 384, 128, "yuv420p"
        pixels = np.zeros((128, 384, 3), np.uint8)
        pixels[:, 192:] = 255
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    work.compare = made
    return work


def levels(page: "Page") -> list[int]:
    """Black or white across the picture that is on the screen."""
    with Image.open(io.BytesIO(page.locator(".stage").screenshot())) as picture:
        row = np.asarray(picture.convert("L"))[picture.height // 4]
    return [round(row[int(x * len(row))] / 255) for x in (0.1, 0.4, 0.6, 0.9)]


def test_the_slider_shows_before_left_and_after_right_of_it(opened: "Page", work: Work, place: Path) -> None:
    with service_of(work).start_threads() as service, served(service) as url:
        opened.goto(url)
        opened.locator("#file").set_input_files(place / "clip.mp4")
        opened.get_by_role("button", name="Upscale").click()
        opened.wait_for_selector("canvas[data-drawn]:not([data-drawn=''])")
        assert levels(opened) == [0, 0, 1, 1]
        slider = opened.locator(".cut")
        slider.fill("20")
        assert levels(opened) == [0, 1, 1, 1]
        slider.press("End")
        assert levels(opened) == [0, 0, 0, 0]
        box = opened.locator(".stage").bounding_box()
        assert box is not None
        opened.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 60)
        opened.mouse.down()
        opened.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=4)
        opened.mouse.up()
        assert float(slider.input_value()) == pytest.approx(50, abs=1.5)
        assert levels(opened) == [0, 0, 1, 1]
        opened.get_by_role("button", name="pause").click()
        opened.get_by_role("button", name="play").wait_for()
        opened.get_by_label("time", exact=True).fill("1")
        opened.get_by_text("0:01.0 of 0:02.0").wait_for()


def test_two_people_see_their_places_and_come_back_to_their_clips(browser: "Browser", work: Work, place: Path) -> None:
    go = threading.Event()
    work.during = lambda: go.wait(60) and None
    with service_of(work).start_threads() as service, served(service) as url:
        people = [browser.new_context().new_page() for _ in range(2)]
        for page in people:
            page.goto(url)
            page.locator("#file").set_input_files(place / "clip.mp4")
            page.get_by_role("button", name="Upscale").click()
            page.locator("#busy").wait_for()
        people[0].get_by_text("Frame 1 of 4").wait_for()
        people[1].get_by_text("No. 2").wait_for()
        address = people[1].url
        assert people[0].get_by_text("Your clips").is_hidden()
        people[1].goto("about:blank")  # away, while it works
        go.set()
        people[0].get_by_role("link", name="Download").wait_for()
        people[1].goto(address)
        people[1].get_by_role("link", name="Download").wait_for()
        people[1].goto(url)
        people[1].get_by_role("link", name="clip.mp4").click()
        people[1].get_by_role("link", name="Download").wait_for()
        for page in people:
            page.context.close()


def test_a_clip_may_come_before_the_server_has_told_its_limits(opened: "Page", work: Work, place: Path) -> None:
    def choose_first(route: "Route") -> None:
        opened.locator("#file").set_input_files(place / "clip.mp4")
        route.continue_()

    opened.route("**/page/about", choose_first)
    with service_of(work).start_threads() as service, served(service) as url:
        opened.goto(url)
        opened.get_by_text(f"48 {TIMES} 32, 6 frames").wait_for()


def test_what_cannot_be_taken_gets_its_line(opened: "Page", work: Work, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"x" * 2**21)
    with service_of(work, page_upload=1) as service, served(service) as url:
        opened.goto(url)
        opened.locator("#file").set_input_files(tmp_path / "bad.mp4")
        alert = opened.get_by_role("alert")
        alert.wait_for()
        assert alert.inner_text() == "bad.mp4 has 2 MiB; this server takes up to 1 MiB. Cut it first."
        (tmp_path / "<b>song.mp3").write_bytes(b"la")
        work.error = "{source}: has no video stream"
        opened.locator("#file").set_input_files(tmp_path / "<b>song.mp3")
        opened.get_by_text("<b>song.mp3: has no video stream").wait_for()


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_window_scrolls_sideways_and_everything_has_a_name(
    opened: "Page", work: Work, place: Path, width: int
) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    unnamed = "e => !(e.ariaLabel || e.textContent.trim() || (e.labels && e.labels.length))"
    with service_of(work).start_threads() as service, served(service) as url:
        opened.goto(url)
        for then in ("#pick", "#ready", "#done"):
            opened.locator(then).wait_for()
            assert opened.evaluate("document.documentElement.scrollWidth") == width
            controls = opened.locator("button:visible, input:visible, select:visible, a:visible").all()
            assert len(controls) >= 2
            assert not [control for control in controls if control.evaluate(unnamed)]
            if then == "#pick":
                opened.locator("#file").set_input_files(place / "clip.mp4")
            elif then == "#ready":
                opened.get_by_role("button", name="Upscale").click()
