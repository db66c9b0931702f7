"""The page as a parser reads it, and as people meet it: in a real browser, where there is one."""

import base64
import html.parser
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from mana_dist.data.degradation import bicubic_upsample
from mana_dist.evaluate.report import evaluation_page
from mana_dist.evaluate.results import Evaluation
from tests.evaluate.evaluations import HOSTILE, clip, evaluation, example, page_of, scores

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

TIMES = "\N{MULTIPLICATION SIGN}"
VOID = {"meta", "img", "input", "br"}


class Reader(html.parser.HTMLParser):
    """Collects elements, attributes and text; refuses what is not nested well."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def several() -> Evaluation:
    """Three clips, of which one is perfect under one method and one has neither motion nor LPIPS."""
    return evaluation(
        ("bicubic", "MANA"),
        clip("clip 2", scores(20, 0.5), scores(22, 0.3), motion=4.0, note="cropped from 961x540 to 960x540"),
        clip("clip 10", scores(35, 0.4), scores(math.inf, 0.0, ssim=1), motion=2.0),
        clip("clip 1", scores(30), scores(29), motion=None, dataset="other"),
        examples=(example("clip 2", 2, 3.0), example("clip 10", 2, 8.0), example("clip 1", 2, 5.0)),
        top_motion=("clip 2",),
    )


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run() -> None:
    text = page_of(several())
    page = Reader(text)
    assert not page.all("link")
    for _, attributes in page.elements:
        for name in ("src", "srcset", "href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    assert page.all("script") == [{}]
    policy = next(entry["content"] for entry in page.all("meta") if entry.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_hostile_names_are_text() -> None:
    hostile = evaluation(
        ("bicubic", HOSTILE),
        clip(HOSTILE, scores(20), scores(21), dataset=HOSTILE, note=HOSTILE),
        examples=(example(HOSTILE, 2),),
        top_motion=(HOSTILE,),
    )
    text = page_of(hostile)
    text.encode()
    page = Reader(text)
    assert len(page.all("script")) == 1
    assert not [attributes for _, attributes in page.elements if "onload" in attributes]
    assert page.texts.count(HOSTILE.replace("\x01", "\ufffd").replace("\udcff", "\ufffd")) >= 8


def test_pictures_are_the_examples_most_different_first() -> None:
    page = Reader(page_of(several()))
    levels = []
    for picture in page.all("img"):
        with Image.open(io.BytesIO(base64.b64decode(picture["src"].split(",")[1]))) as image:
            levels.append((picture["alt"], image.size[0], np.asarray(image)[0, 0].tolist()))
    assert levels == 3 * [
        ("LR", 8, [10] * 3),
        ("bicubic", 32, [50] * 3),
        ("MANA", 32, [60] * 3),
        ("HR", 32, [200] * 3),
    ]
    headings = re.findall(r"<h3><bdi>(clip \d+)</bdi>", page_of(several()))
    assert headings == ["clip 10", "clip 1", "clip 2"]


def test_crops_of_a_clip_stand_together_and_where_there_is_no_room_every_clip_keeps_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = evaluation(
        ("bicubic", "MANA"),
        *(clip(name, scores(20), scores(21)) for name in "ab"),
        examples=tuple(example(name, 2, difference) for name, difference in zip("aaab", (9, 8, 7, 6), strict=True)),
    )

    def shown() -> list[tuple[str, str]]:
        return re.findall(r"<h3><bdi>(\w)</bdi>.*?difference ([\d.]+) of 255", page_of(found))

    assert shown() == [("a", "9.0"), ("a", "8.0"), ("a", "7.0"), ("b", "6.0")]
    one = page_of(found).split("</article>")[0]
    monkeypatch.setattr(evaluation_page, "EXAMPLES_SIZE", 3.5 * len(one[one.index("<article") :]))
    assert shown() == [("a", "9.0"), ("a", "8.0"), ("b", "6.0")]


def test_without_the_bicubic_method_its_picture_is_made_from_the_lr_crop() -> None:
    found = example("a", 1)
    page = Reader(page_of(evaluation(("MANA",), clip("a", scores(20)), examples=(found,))))
    assert [picture["alt"] for picture in page.all("img")] == ["LR", "LR, bicubic", "MANA", "HR"]
    with Image.open(io.BytesIO(base64.b64decode(page.all("img")[1]["src"].split(",")[1]))) as image:
        np.testing.assert_array_equal(np.asarray(image), bicubic_upsample(found.lr))


def test_every_choice_and_note_and_footnote_stands_in_the_page() -> None:
    text = " ".join(Reader(page_of(several())).texts)
    for expected in ("BT.601", "degradation version", "11x11", "s3://bucket/*.mp4", "not available: no trunk"):
        assert expected in text
    assert "cropped from 961x540 to 960x540: " in text
    assert "the 1 of 3 clips with the largest motion, 4.00 LR pixels per frame or more" in text


def test_a_page_of_many_methods_and_clips_stays_below_ten_megabytes() -> None:
    random = np.random.default_rng(0)
    methods = ("bicubic", *(f"m{number}" for number in range(9)))
    noisy = [example(str(number), 10, side=160) for number in range(20)]
    for found in noisy:  # noise: no picture's file is larger
        found.outputs[:] = list(random.integers(0, 256, (10, 160, 160, 3), dtype=np.uint8))
    clips = [clip(f"clip {number}", *(scores(20 + number % 9) for _ in methods)) for number in range(1000)]
    text = page_of(evaluation(methods, *clips, examples=tuple(noisy)))
    assert len(text.encode()) < 10_000_000
    assert 2 <= text.count('<article class="example">') <= evaluation_page.CLIPS_WITH_EXAMPLES
    assert "800 clips more" in text


def test_no_examples() -> None:
    assert "No pictures were kept" in page_of(evaluation(("bicubic",), clip("a", scores(20))))


@pytest.fixture
def opened(browser: "Browser", tmp_path: Path) -> Iterator["Page"]:
    """The page of ``several()``, opened from its file; at the end it must have complained of nothing."""
    (tmp_path / "report.html").write_text(page_of(several()), "utf-8")
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    said: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    yield page
    page.close()
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]


def column(page: "Page", number: int) -> list[str]:
    return page.locator(f"table.sortable tbody td:nth-child({number})").all_inner_texts()


def shown(page: "Page", stage: "Locator", x: float, y: float = 0.5) -> int:
    """The grey level on the screen at that share of the stage."""
    with Image.open(io.BytesIO(stage.screenshot())) as picture:
        return int(np.asarray(picture.convert("L"))[int(y * picture.height), int(x * picture.width)])


def test_sorting_by_mouse_and_keyboard(opened: "Page") -> None:
    heads = opened.locator("table.sortable thead th")
    buttons = heads.locator("button")
    assert column(opened, 4) == ["20.00", "22.00", "35.00", "∞", "30.00", "29.00"]
    buttons.nth(3).click()
    assert column(opened, 4) == ["∞", "35.00", "30.00", "29.00", "22.00", "20.00"]
    assert heads.nth(3).get_attribute("aria-sort") == "descending"
    buttons.nth(3).press("Enter")
    assert column(opened, 4) == ["20.00", "22.00", "29.00", "30.00", "35.00", "∞"]
    assert heads.nth(3).get_attribute("aria-sort") == "ascending"
    buttons.nth(5).press(" ")  # LPIPS; the clip without any stays last both ways
    assert column(opened, 6) == ["0.5000", "0.4000", "0.3000", "0.0000", "\N{EN DASH}", "\N{EN DASH}"]
    buttons.nth(5).press(" ")
    assert column(opened, 6) == ["0.0000", "0.3000", "0.4000", "0.5000", "\N{EN DASH}", "\N{EN DASH}"]
    assert opened.locator("[aria-sort]").count() == 1
    buttons.nth(0).click()
    assert column(opened, 1) == ["clip 1", "clip 1", "clip 2", "clip 2", "clip 10", "clip 10"]


def test_the_slider_shows_one_picture_left_of_it_and_another_right_of_it(opened: "Page") -> None:
    stage, slider = opened.locator(".stage").first, opened.locator(".stage + .controls input").first
    assert opened.locator(".stage").count() == 3
    assert [shown(opened, stage, x) for x in (0.2, 0.4, 0.6, 0.8)] == [50, 50, 60, 60]  # bicubic, MANA
    slider.focus()
    for _ in range(40):
        slider.press("ArrowLeft")
    assert slider.input_value() == "30"
    assert [shown(opened, stage, x) for x in (0.2, 0.4)] == [50, 60]
    opened.locator("select[name=left]").select_option("LR")
    opened.locator("select[name=right]").select_option("HR")
    assert [shown(opened, stage, x) for x in (0.2, 0.4)] == [10, 200]
    assert slider.get_attribute("aria-label") == "where LR ends and HR begins, percent"


def test_dragging_moves_the_border(opened: "Page") -> None:
    stage, slider = opened.locator(".stage").first, opened.locator(".stage + .controls input").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2, steps=4)
    opened.mouse.up()
    assert float(slider.input_value()) == pytest.approx(75, abs=0.5)
    assert [shown(opened, stage, x) for x in (0.7, 0.8)] == [50, 60]
    opened.mouse.move(box["x"], box["y"])
    assert float(slider.input_value()) == pytest.approx(75, abs=0.5)  # not dragged any more


def test_zoom_by_buttons_and_wheel_about_the_pointer(opened: "Page") -> None:
    stage, zoomed = opened.locator(".stage").first, opened.locator(".controls output").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None

    def offset() -> tuple[float, float, float]:
        transform = stage.locator("img").first.evaluate("image => image.style.transform")
        x, y, scale = map(float, re.findall(r"-?[\d.]+", transform))
        return x, y, scale

    opened.mouse.move(box["x"] + 30, box["y"] + 60)
    opened.mouse.wheel(0, -40)  # the page's, as this picture was not clicked
    opened.wait_for_timeout(100)
    assert zoomed.inner_text() == f"1.0{TIMES}"
    stage.locator("xpath=following-sibling::*[1]").get_by_label("zoom in").click()
    assert offset()[2] == 1.5
    assert zoomed.inner_text() == f"1.5{TIMES}"
    stage.locator("xpath=following-sibling::*[1]").get_by_label("zoom out").click()
    assert offset() == (0, 0, 1)
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    opened.mouse.click(box["x"] + 30, box["y"] + 60)
    opened.mouse.wheel(0, -400)
    opened.wait_for_function("!document.querySelector('.controls output').textContent.startsWith('1.0')")
    x, y, scale = offset()
    assert scale == pytest.approx(math.e)
    assert (x, y) == pytest.approx((30 - 30 * scale, 60 - 60 * scale), abs=1.5)  # that point stays under the pointer
    assert opened.locator(".controls output").nth(1).inner_text() == f"1.0{TIMES}"
    split = opened.locator(".controls input").first.input_value()
    opened.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 60)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] * 0.8 - 20, box["y"] + 50, steps=3)
    opened.mouse.up()
    assert offset() == pytest.approx((x - 20, y - 10, scale), abs=0.01)
    assert opened.locator(".controls input").first.input_value() == split


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_window_scrolls_sideways_and_everything_has_a_name(opened: "Page", width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    unnamed = "e => !(e.ariaLabel || e.textContent.trim() || (e.labels && e.labels.length))"
    controls = opened.locator("button, input, select")
    assert controls.count() > 10
    assert not [entry for entry in controls.all() if entry.evaluate(unnamed)]


def test_dark_and_print(opened: "Page") -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    opened.emulate_media(color_scheme="dark")
    assert opened.evaluate(background) == "rgb(20, 23, 27)"
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    opened.set_viewport_size({"width": 720, "height": 1000})  # what A4 leaves between its margins
    assert opened.evaluate("document.documentElement.scrollWidth") == 720
    assert not opened.locator(".stage").first.is_visible()
    assert opened.locator(".strip img").first.is_visible()


def test_without_scripts_the_page_is_still_complete(browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page_of(several()), "utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator(".strip img:visible").count() == 12
    assert not page.locator("form.pair").is_visible()
    assert page.locator("table.sortable tbody tr").count() == 6
    context.close()


def test_hostile_names_do_nothing_in_the_browser(browser: "Browser", tmp_path: Path) -> None:
    hostile = evaluation(
        ("bicubic", HOSTILE), clip(HOSTILE, scores(20), scores(21), note=HOSTILE), examples=(example(HOSTILE, 2),)
    )
    (tmp_path / "report.html").write_text(page_of(hostile), "utf-8")
    page = browser.new_page()
    happened: list[str] = []
    page.on("dialog", lambda dialog: happened.append(dialog.message))
    page.on("console", lambda message: happened.append(message.text))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("script").count() == 1
    assert page.locator(".label.right").first.inner_text().startswith("<script>alert(1)</script>")
    assert happened == []
    page.close()
