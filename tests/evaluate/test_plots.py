"""The plots: which points matplotlib is given, and that what it writes can stand in a page."""

import math
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from mana_dist.evaluate.report.evaluation_plots import CLIPS_SHOWN, gain_over_motion, psnr_per_clip, svgs
from mana_dist.evaluate.results import Evaluation
from mana_dist.report_pages.svg_plots import COLOURS, MARKERS, standalone
from tests.evaluate.evaluations import HOSTILE, clip, evaluation, scores

SVG = "{http://www.w3.org/2000/svg}"


def points(figure: Figure | None) -> dict[str, set[tuple[float, float]]]:
    """What is drawn in a plot, by its name in the legend."""
    assert figure is not None
    (plot,) = figure.axes
    return {
        str(drawn.get_label()).strip(): {
            (round(x, 6), round(y, 6)) for x, y in np.asarray(drawn.get_offsets()).tolist()
        }
        for drawn in plot.collections
    }


def example_evaluation() -> Evaluation:
    return evaluation(
        ("bicubic", "MANA", "other"),
        clip("a", scores(20), scores(22.5), scores(19), motion=0.25),
        clip("b", scores(30), scores(33.1), scores(30), motion=12.5),
        clip("still", scores(30), scores(99), scores(99), motion=None),
        clip("perfect", scores(30), scores(math.inf), scores(31), motion=3.0),
    )


def test_gains_lie_at_their_motion_and_decibels() -> None:
    assert points(gain_over_motion(example_evaluation())) == {
        "MANA": {(0.25, 2.5), (12.5, 3.1)},
        "other": {(0.25, -1.0), (12.5, 0.0), (3.0, 1.0)},
    }


def test_psnr_lies_in_its_clips_row() -> None:
    figure = psnr_per_clip(example_evaluation())
    assert points(figure) == {
        "bicubic": {(20, 0), (30, 1), (30, 2), (30, 3)},
        "MANA": {(22.5, 0), (33.1, 1), (99, 2)},
        "other": {(19, 0), (30, 1), (99, 2), (31, 3)},
    }
    assert figure is not None
    (plot,) = figure.axes
    assert [label.get_text() for label in plot.get_yticklabels()] == ["a", "b", "still", "perfect"]
    bottom, top = plot.get_ylim()
    assert bottom > top  # in the data's order, from the top


def test_the_legend_names_every_method_as_it_is_called() -> None:
    methods = ("bicubic", "_private", "a $x_1$ b", *(f"method {number}" for number in range(9)))
    many = evaluation(methods, *(clip(f"clip {n}", *(scores(20 + n + m) for m in range(12))) for n in range(60)))
    for svg, named in zip(svgs(many).values(), (methods[1:], methods), strict=True):
        texts = [entry.text for entry in ElementTree.fromstring(svg).iter(f"{SVG}text")]
        assert [text.strip() for text in texts if text and text.startswith(" ")] == list(named)
    assert len(points(psnr_per_clip(many))["bicubic"]) == CLIPS_SHOWN
    assert len(set(zip(7 * MARKERS, 6 * COLOURS, strict=True))) == 42


def test_colours_stand_out_from_both_pages() -> None:
    def luminance(colour: str) -> float:  # WCAG 2.2
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour, page in product(COLOURS, ("#ffffff", "#14171b")):
        dark, light = sorted((luminance(colour), luminance(page)))
        assert (light + 0.05) / (dark + 0.05) >= 3, (colour, page)


def test_text_and_lines_take_the_pages_colour_and_nothing_is_fetched() -> None:
    for what, svg in svgs(example_evaluation()).items():
        root = ElementTree.fromstring(svg)
        assert root.get("aria-label") == what
        for entry in root.iter(f"{SVG}text"):
            assert "fill: currentColor" in entry.get("style", "")
        for entry in root.iter():
            assert all(value.startswith("#") for name, value in entry.items() if name.endswith("href"))
        assert ElementTree.fromstring(standalone(svg))[0].tag == f"{SVG}style"


def test_the_same_results_give_the_same_bytes() -> None:
    assert svgs(example_evaluation()) == svgs(example_evaluation())


@pytest.mark.parametrize(
    "found",
    [
        evaluation(("MANA",), clip("a", scores(20))),
        evaluation(("bicubic",), clip("a", scores(20))),
        evaluation(("bicubic", "m"), clip("a", scores(2), scores(3), motion=None)),
    ],
    ids=["no bicubic", "no other", "no motion"],
)
def test_without_bicubic_motion_or_another_method_there_is_no_gain(found: Evaluation) -> None:
    assert gain_over_motion(found) is None


def test_without_a_finite_number_there_is_no_plot() -> None:
    assert svgs(evaluation(("m",), clip("a", scores(math.inf)))) == {}


def test_names_are_text() -> None:
    hostile = evaluation(("bicubic", HOSTILE), clip(HOSTILE, scores(20), scores(21)))
    for svg in svgs(hostile).values():
        root = ElementTree.fromstring(svg)
        assert not list(root.iter(f"{SVG}script"))
        assert any("\ufffd $style" in (entry.text or "") for entry in root.iter(f"{SVG}text"))


def test_a_whole_vimeo_test_set_is_a_small_plot() -> None:
    many = evaluation(
        ("bicubic", "MANA"), *(clip(f"{n}", scores(20), scores(21 + n % 7), motion=n / 1000) for n in range(7824))
    )
    assert all(len(svg) < 200_000 for svg in svgs(many).values())
