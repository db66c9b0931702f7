"""Plots as SVG text, drawn by matplotlib in the colours of the page that they stand on."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mana_dist.report_pages.text import clean, shortened, to_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c06a9b", "#b07d00", "#7d5fd3", "#848484")
"""Okabe and Ito's palette, which the colour-blind can distinguish, darkened for contrast with white and dark pages."""
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Of 42 series, no two share both colour and shape."""

_INK = "#010203"  # the colour of the page's text, once the plot is in the page
DASHED: dict[str, Any] = {"color": _INK, "alpha": 0.5, "linewidth": 1, "linestyle": (0, (4, 3))}
"""How lines look that are no series."""

_WIDTH = 6.4  # inches of 72 SVG units
_STYLE = (
    "<style>:root{color:#1b1f24;background:#fff}"
    "@media(prefers-color-scheme:dark){:root{color:#e6e8ea;background:#14171b}}</style>"
)


def axes(height: float, x_label: str, y_label: str) -> "Axes":
    """Return empty axes with a light grid in a figure of ``height`` inches."""
    from matplotlib.figure import Figure

    plot: Axes = Figure(figsize=(_WIDTH, height), layout="constrained").subplots()
    plot.set_xlabel(x_label)
    plot.set_ylabel(y_label)
    plot.grid(color=_INK, alpha=0.15, linewidth=0.8)
    plot.set_axisbelow(True)
    plot.tick_params(length=0, colors=_INK)
    for label in (plot.xaxis.label, plot.yaxis.label):
        label.set_color(_INK)
    plot.spines[:].set_visible(False)
    return plot


def scatter(plot: "Axes", name: str, number: int, points: Sequence[tuple[float, float]]) -> None:
    """Draw the points of the series of that number, whose ``name`` may hold anything."""
    x, y = zip(*points, strict=True)
    many = len(points) > 2000  # as vectors they would make the file large
    plot.scatter(
        x,
        y,
        s=6 if many else 30,
        rasterized=many,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        alpha=0.85,
        linewidths=0,
        label=f" {shortened(clean(name), 34)}",  # matplotlib shows none that begins with an underscore
    )


def name_point(plot: "Axes", name: str, point: tuple[float, float]) -> None:
    """Write a name beside a point."""
    plot.annotate(clean(name), point, (6, 6), textcoords="offset points", fontsize=8, color=_INK, parse_math=False)


def with_legend(plot: "Axes") -> "Figure | None":
    """Name the series below the plot, and return its figure; None if no series was drawn."""
    figure = plot.get_figure(root=True)
    _, names = plot.get_legend_handles_labels()
    if not names or figure is None:
        return None
    legend = figure.legend(loc="outside lower left", ncols=2, frameon=False, labelcolor=_INK)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold dollar signs
    return figure


def to_svg(figure: "Figure", label: str) -> str:
    """Return the figure as an SVG element; ``label`` says what it shows. The same figure gives the same text."""
    import matplotlib

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.size": 10}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    stream = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has fonts of its own
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue().partition("<svg ")[2].strip()
    svg = svg.replace("DejaVu Sans", "system-ui").replace(_INK, "currentColor")
    return f'<svg role="img" aria-label="{to_html(label)}" {svg}'


def standalone(svg: str) -> bytes:
    """Return a plot as a separate file, with colours for light and dark pages."""
    opening, rest = svg.split(">", 1)
    return f"{opening}>{_STYLE}{rest}\n".encode()
