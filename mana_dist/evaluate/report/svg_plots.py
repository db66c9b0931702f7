"""Plots as SVG text, written without a library: they take the page's colours and show titles on hovering.

Every method has a colour and a shape; of 42 methods, no two share both. The colours are those of Okabe and Ito's
palette, which the colour-blind can distinguish, darkened where needed for contrast with a white and a dark page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mana_dist.evaluate.methods import BICUBIC
from mana_dist.evaluate.report import metrics_table
from mana_dist.evaluate.report.text import shortened, to_html
from mana_dist.evaluate.results import Evaluation

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c06a9b", "#b07d00", "#7d5fd3", "#848484")
SHAPES = (  # around (0, 0), of about equal area
    "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0-8.4 0z",  # disc
    "M-3.7-3.7h7.4v7.4h-7.4z",  # square
    "M0-5.2L4.9 3.6H-4.9z",  # triangle
    "M0-5.4L5.4 0L0 5.4L-5.4 0z",  # diamond
    "M0 5.2L4.9-3.6H-4.9z",  # triangle on its head
    "M-1.6-4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",  # cross
)
CLIPS_SHOWN = 40
TITLED_POINTS = 2000
"""Largest number of points with titles that show on hovering; more are drawn as one path per method."""

WIDTH, RIGHT = 600, 16
_LEGEND_ROW, _CLIP_ROW = 18, 20
_STYLE = (
    "<style>:root{color:#1b1f24;background:#fff}"
    "@media(prefers-color-scheme:dark){:root{color:#e6e8ea;background:#14171b}}</style>"
)


@dataclass(frozen=True)
class Point:
    """A point of a plot.

    Attributes:
        x: in the x axis's unit.
        y: in the y axis's unit.
        title: shown on hovering.
    """

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Axis:
    """Ticks at round numbers around some values, and where they lie.

    Attributes:
        ticks: ascending, equally far apart; the first and the last enclose the values.
        start: pixel of the first tick.
        stop: pixel of the last one.
        label: name of its quantity, with the unit.
    """

    ticks: tuple[float, ...]
    start: float
    stop: float
    label: str

    def pixel(self, value: float) -> float:
        """Return the pixel of ``value``."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.start + share * (self.stop - self.start)

    def text(self, tick: float) -> str:
        """Return a tick's number, with as many digits as the ticks need."""
        digits = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return f"{tick:.{digits}f}" if round(tick, digits) else "0"


def gain_over_motion(evaluation: Evaluation) -> str | None:
    """Plot PSNR gain over bicubic against motion, a point per clip and method (cf. the paper's Table 2).

    Returns:
        SVG; None if bicubic or another method is missing, or no clip has a motion and a finite gain.
    """
    if BICUBIC not in evaluation.methods:
        return None
    base = evaluation.methods.index(BICUBIC)
    series: list[list[Point]] = [[] for _ in evaluation.methods]
    for clip in evaluation.clips:
        for number, (method, scores) in enumerate(zip(evaluation.methods, clip.scores, strict=True)):
            gain = metrics_table.gain(scores.psnr_rgb, clip.scores[base].psnr_rgb)
            if number != base and gain is not None and clip.motion is not None:
                title = f"{clip.clip}, {method}: {metrics_table.signed(gain)} dB at {clip.motion:.2f} pixels per frame"
                series[number].append(Point(clip.motion, gain, title))
    points = [point for found in series for point in found]
    if not points:
        return None
    bottom = 300
    x = Axis(ticks([0, *(point.x for point in points)]), 56, WIDTH - RIGHT, "motion (LR pixels per frame)")
    y = Axis(ticks([0, *(point.y for point in points)]), bottom, 16, "PSNR gain over bicubic (dB)")
    zero = f'<path class="zero" d="M{x.start} {y.pixel(0):.2f}H{x.stop}" stroke="currentColor" stroke-dasharray="4 3"/>'
    legend, height = draw_legend(evaluation.methods, bottom + 60, without=base)
    parts = [draw_grid_x(x, y.stop, bottom), draw_grid_y(y, x), zero, draw_points(series, x, y), legend]
    return to_svg(height, "PSNR gain over bicubic against motion, a point per clip and method", parts)


def psnr_per_clip(evaluation: Evaluation) -> str | None:
    """Plot PSNR by clip and method: a row per clip, at most ``CLIPS_SHOWN``, those in which methods differ most.

    Returns:
        SVG; None if no PSNR is finite.
    """
    clips = metrics_table.most_different_clips(evaluation, CLIPS_SHOWN)
    series = [
        [
            Point(psnr, row, f"{clip.clip}, {method}: {psnr:.2f} dB")
            for row, clip in enumerate(clips)
            if math.isfinite(psnr := clip.scores[number].psnr_rgb)
        ]
        for number, method in enumerate(evaluation.methods)
    ]
    values = [point.x for found in series for point in found]
    if not values:
        return None
    left, top = 190, 12
    bottom = top + len(clips) * _CLIP_ROW
    x = Axis(ticks(values), left, WIDTH - RIGHT, "PSNR (dB)")
    y = Axis((0, 1), top + _CLIP_ROW / 2, top + _CLIP_ROW * 1.5, "clip")
    names = [
        f'<text class="clip" x="{left - 10}" y="{y.pixel(row) + 4:.1f}" text-anchor="end">'
        f"<title>{to_html(clip.clip)}</title>{to_html(shortened(clip.clip, 23))}</text>"
        f'<path class="grid" d="M{left} {y.pixel(row):.1f}H{x.stop}" stroke="currentColor" stroke-opacity=".12"/>'
        for row, clip in enumerate(clips)
    ]
    legend, height = draw_legend(evaluation.methods, bottom + 60)
    parts = [draw_grid_x(x, top, bottom), *names, draw_points(series, x, y), legend]
    return to_svg(height, "PSNR of each method in each clip", parts)


def standalone(svg: str) -> bytes:
    """Return a plot as a separate file, with colours for light and dark pages."""
    opening, rest = svg.split(">", 1)
    return f"{opening}>{_STYLE}{rest}\n".encode()


def ticks(values: Sequence[float]) -> tuple[float, ...]:
    """Return three to eight round numbers around ``values``: 1, 2 or 5 times a power of ten apart."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    power = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= (high - low) / 6)
    # The tolerance: a value that differs from a tick by rounding alone adds no further tick.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(number * step for number in range(first, max(last, first + 2) + 1))


def draw_points(series: Sequence[Sequence[Point]], x: Axis, y: Axis) -> str:
    """Draw the points of each series, in its colour and shape."""
    titled = sum(map(len, series)) <= TITLED_POINTS
    parts = []
    for number, points in enumerate(series):
        if not points:
            continue
        places = [(x.pixel(point.x), y.pixel(point.y)) for point in points]
        if titled:
            shape = SHAPES[number % len(SHAPES)]
            drawn = "".join(
                f'<path transform="translate({left:.2f} {top:.2f})" d="{shape}"><title>{to_html(point.title)}</title>'
                f"</path>"
                for (left, top), point in zip(places, points, strict=True)
            )
        else:
            path = "".join(f"M{left:.1f} {top:.1f}h0" for left, top in places)
            drawn = f'<path d="{path}" stroke="{_colour(number)}" stroke-width="3" stroke-linecap="round"/>'
        parts.append(
            f'<g class="points" data-method="{number}" fill="{_colour(number)}" fill-opacity=".85">{drawn}</g>'
        )
    return "".join(parts)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def draw_grid_x(axis: Axis, top: float, bottom: float) -> str:
    """Draw lines, numbers and the label of an x axis."""
    parts = [
        f'<path class="grid" d="M{axis.pixel(tick):.2f} {top}V{bottom}" stroke="currentColor" stroke-opacity=".15"/>'
        f'<text class="tick x" x="{axis.pixel(tick):.2f}" y="{bottom + 18}" text-anchor="middle">{axis.text(tick)}'
        f"</text>"
        for tick in axis.ticks
    ]
    middle = (axis.start + axis.stop) / 2
    return "".join([*parts, f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">{axis.label}</text>'])


def draw_grid_y(axis: Axis, x: Axis) -> str:
    """Draw lines, numbers and the label of a y axis."""
    parts = [
        f'<path class="grid" d="M{x.start} {axis.pixel(tick):.2f}H{x.stop}" stroke="currentColor" '
        f'stroke-opacity=".15"/><text class="tick y" x="{x.start - 8}" y="{axis.pixel(tick):.2f}" dy="4" '
        f'text-anchor="end">{axis.text(tick)}</text>'
        for tick in axis.ticks
    ]
    middle = (axis.start + axis.stop) / 2
    return "".join(
        [*parts, f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{axis.label}</text>']
    )


def draw_legend(methods: Sequence[str], top: int, without: int | None = None) -> tuple[str, int]:
    """Draw the legend, two methods to a row; return it and the plot's height."""
    shown = [(number, name) for number, name in enumerate(methods) if number != without]
    parts = [
        f'<g class="legend" transform="translate({20 + place % 2 * WIDTH // 2} {top + place // 2 * _LEGEND_ROW})">'
        f'<path d="{SHAPES[number % len(SHAPES)]}" fill="{_colour(number)}"/>'
        f'<text x="12" y="4"><title>{to_html(name)}</title>{to_html(shortened(name, 34))}</text></g>'
        for place, (number, name) in enumerate(shown)
    ]
    return "".join(parts), top + -(-len(shown) // 2) * _LEGEND_ROW


def to_svg(height: int, label: str, parts: Sequence[str]) -> str:
    """Return a whole plot of its parts; ``label`` says what it shows."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">{"".join(parts)}</svg>'
    )
