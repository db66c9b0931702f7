"""The plots as XML: every point lies where the numbers at the axes' ticks say it should."""

import math
import re
from itertools import pairwise, product
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from mana_dist.evaluate.report import svg_plots
from mana_dist.evaluate.results import Evaluation
from tests.evaluate.evaluations import HOSTILE, clip, evaluation, scores

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str | None) -> ElementTree.Element:
    assert svg is not None
    return ElementTree.fromstring(svg)


def axis(root: ElementTree.Element, name: str) -> NDArray[np.float64]:
    """(slope, offset) of value over pixel, read off the tick labels as a reader would."""
    found = [entry for entry in root.iter(f"{SVG}text") if entry.get("class") == f"tick {name}"]
    pixels = [float(entry.get(name, "")) for entry in found]
    return np.polyfit(pixels, [float(entry.text or "") for entry in found], 1)


def places(root: ElementTree.Element) -> list[tuple[int, float, float, str]]:
    """Of each point its method's number, pixels and title."""
    found = []
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "points":
            for point in group:
                x, y = map(float, re.findall(r"-?[\d.]+", point.get("transform", "")))
                found.append((int(group.get("data-method", "")), x, y, point.findtext(f"{SVG}title") or ""))
    return found


def example_evaluation() -> Evaluation:
    return evaluation(
        ("bicubic", "MANA", "other"),
        clip("a", scores(20), scores(22.5), scores(19), motion=0.25),
        clip("b", scores(30), scores(33.1), scores(30), motion=12.5),
        clip("still", scores(30), scores(99), scores(99), motion=None),
        clip("perfect", scores(30), scores(math.inf), scores(31), motion=3.0),
    )


def test_gains_lie_at_their_motion_and_decibels() -> None:
    root = parsed(svg_plots.gain_over_motion(example_evaluation()))
    to_motion, to_gain = axis(root, "x"), axis(root, "y")
    found = {
        (method, round(float(np.polyval(to_motion, x)), 2), round(float(np.polyval(to_gain, y)), 2))
        for method, x, y, _ in places(root)
    }
    assert found == {(1, 0.25, 2.5), (1, 12.5, 3.1), (2, 0.25, -1.0), (2, 12.5, 0.0), (2, 3.0, 1.0)}
    assert places(root)[0][3] == "a, MANA: +2.50 dB at 0.25 pixels per frame"
    zero = next(entry for entry in root.iter(f"{SVG}path") if entry.get("class") == "zero")
    height = float(re.findall(r"M\d+ ([\d.]+)H", zero.get("d", ""))[0])
    assert np.polyval(to_gain, height) == pytest.approx(0, abs=0.01)


def test_psnr_lies_in_its_clips_row() -> None:
    root = parsed(svg_plots.psnr_per_clip(example_evaluation()))
    to_psnr = axis(root, "x")
    rows = {
        (entry.text or "\n").split("\n")[0] or (entry[0].tail or ""): float(entry.get("y", "")) - 4
        for entry in root.iter(f"{SVG}text")
        if entry.get("class") == "clip"
    }
    expected = {entry.clip: [one.psnr_rgb for one in entry.scores] for entry in example_evaluation().clips}
    seen = 0
    for method, x, y, title in places(root):
        name = title.split(",")[0]
        assert y == pytest.approx(rows[name], abs=0.06)
        assert np.polyval(to_psnr, x) == pytest.approx(expected[name][method], abs=0.1)
        seen += 1
    assert seen == 11  # one of twelve is infinite
    assert sorted(rows.values()) == list(rows.values())  # in the data's order, from the top


def test_all_points_lie_in_the_picture_and_the_legend_names_every_method() -> None:
    methods = ("bicubic", *(f"method {number}" for number in range(9)))
    many = evaluation(methods, *(clip(f"clip {n}", *(scores(20 + n + m) for m in range(10))) for n in range(60)))
    for svg, named in ((svg_plots.gain_over_motion(many), methods[1:]), (svg_plots.psnr_per_clip(many), methods)):
        root = parsed(svg)
        width, height = map(float, root.get("viewBox", "").split()[2:])
        assert all(0 < x < width and 0 < y < height for _, x, y, _ in places(root))
        legend = [entry for entry in root.iter(f"{SVG}g") if entry.get("class") == "legend"]
        assert [entry.findtext(f"{SVG}text/{SVG}title") for entry in legend] == list(named)
        drawn = [(entry[0].get("d"), entry[0].get("fill")) for entry in legend]
        assert len(set(drawn)) == len(drawn)  # no two of a colour and a shape


def test_colours_stand_out_from_both_pages() -> None:
    def luminance(colour: str) -> float:  # WCAG 2.2
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour, page in product(svg_plots.COLOURS, ("#ffffff", "#14171b")):
        dark, light = sorted((luminance(colour), luminance(page)))
        assert (light + 0.05) / (dark + 0.05) >= 3, (colour, page)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 10], (0, 2, 4, 6, 8, 10)),
        ([0.13, 0.42], (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)),
        ([-1.2, 0.9], (-1.5, -1, -0.5, 0, 0.5, 1)),
        ([22.3, 36.4], (20, 25, 30, 35, 40)),
        ([5, 5], (4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6)),
        ([0, 0.3], (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
    ],
)
def test_ticks_are_round(values: list[float], expected: tuple[float, ...]) -> None:
    assert svg_plots.ticks(values) == pytest.approx(expected)


def test_ticks_enclose_any_values() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        values = (random.normal(size=3) * 10 ** random.uniform(-4, 4)).tolist()
        ticks = svg_plots.ticks(values)
        assert 3 <= len(ticks) <= 8
        step = ticks[1] - ticks[0]
        assert ticks[0] <= min(values) + 1e-6 * step
        assert ticks[-1] >= max(values) - 1e-6 * step
        assert all(b - a == pytest.approx(step) for a, b in pairwise(ticks))


def test_without_bicubic_motion_or_finite_numbers_there_is_no_plot() -> None:
    assert svg_plots.gain_over_motion(evaluation(("MANA",), clip("a", scores(20)))) is None
    assert svg_plots.gain_over_motion(evaluation(("bicubic",), clip("a", scores(20)))) is None
    assert (
        svg_plots.gain_over_motion(evaluation(("bicubic", "m"), clip("a", scores(2), scores(3), motion=None))) is None
    )
    assert svg_plots.psnr_per_clip(evaluation(("m",), clip("a", scores(math.inf)))) is None


def test_names_are_escaped() -> None:
    hostile = evaluation(("bicubic", HOSTILE), clip(HOSTILE, scores(20), scores(21)))
    for svg in (svg_plots.gain_over_motion(hostile), svg_plots.psnr_per_clip(hostile)):
        root = parsed(svg)
        assert not list(root.iter(f"{SVG}script"))
        assert any("<script>alert(1)" in title for *_, title in places(root))
        assert svg is not None
        ElementTree.fromstring(svg_plots.standalone(svg))


def test_a_whole_vimeo_test_set_is_a_small_plot() -> None:
    many = evaluation(
        ("bicubic", "MANA"), *(clip(f"{n}", scores(20), scores(21 + n % 7), motion=n / 1000) for n in range(7824))
    )
    svg = svg_plots.gain_over_motion(many)
    assert svg is not None
    assert len(svg) < 200_000
    paths = [group[0].get("d", "") for group in parsed(svg).iter(f"{SVG}g") if group.get("class") == "points"]
    assert [path.count("M") for path in paths] == [7824]
