"""Plots of a sweep as SVG: quality against the setting, and against what a step costs, with the Pareto front."""

import math
from collections.abc import Callable, Sequence

from mana_dist.evaluate.report import svg_plots
from mana_dist.evaluate.report.svg_plots import Axis, Point
from mana_dist.sweep.results_table import COLUMNS, Row, Table

_BOTTOM = 300
_LEFT = 72  # room for ticks like 24.775 beside the axis's label


def quality(table: Table, axis: str) -> str | None:
    """Plot PSNR of the last group of columns (over all clips) against the setting; None where nothing has finished."""
    points = _psnr(table, lambda row: row.setting.x)
    return _plot(table, points, axis, f"PSNR against {axis}", front=False)


def step_time(table: Table) -> str | None:
    """Plot PSNR against the seconds of a step."""
    points = _psnr(table, lambda row: row.step_seconds.mean)
    return _plot(table, points, "seconds per step of the last stage", "PSNR against time per step", front=True)


def memory(table: Table) -> str | None:
    """Plot PSNR against a worker's memory."""

    def gib(row: Row) -> float | None:
        return None if row.memory_bytes.mean is None else row.memory_bytes.mean / 2**30

    return _plot(table, _psnr(table, gib), "GiB per worker", "PSNR against memory", front=True)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front, by rising cost: the points without any other that is better at no more cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def _psnr(table: Table, cost: Callable[[Row], float | None]) -> list[list[Point]]:
    """Return the points of each series."""
    names = _series(table)
    found: list[list[Point]] = [[] for _ in names]
    position = (len(table.datasets) - 1) * len(COLUMNS)
    for row in table.rows:
        psnr = row.values[position].mean if row.values else None
        x = cost(row)
        if psnr is not None and math.isfinite(psnr) and x is not None:
            title = f"{row.setting.label}: {psnr:.2f} dB"
            found[names.index(row.setting.series)].append(Point(x, psnr, title))
    return found


def _series(table: Table) -> list[str]:
    return list(dict.fromkeys(row.setting.series for row in table.rows))


def _plot(table: Table, series: Sequence[Sequence[Point]], x_label: str, label: str, *, front: bool) -> str | None:
    points = [point for found in series for point in found]
    if not points:
        return None
    x = Axis(svg_plots.ticks([point.x for point in points]), _LEFT, svg_plots.WIDTH - svg_plots.RIGHT, x_label)
    y = Axis(svg_plots.ticks([point.y for point in points]), _BOTTOM, 16, "PSNR (dB)")
    line = _line(pareto(points), x, y, "5 4") if front else "".join(_line(found, x, y) for found in series)
    names = "".join(_name(point, x, y) for point in points)
    legend, height = svg_plots.draw_legend(_series(table), _BOTTOM + 60)
    parts = [
        svg_plots.draw_grid_x(x, y.stop, _BOTTOM),
        svg_plots.draw_grid_y(y, x),
        line,
        svg_plots.draw_points(series, x, y),
    ]
    return svg_plots.to_svg(height, label, [*parts, names, legend])


def _name(point: Point, x: Axis, y: Axis) -> str:
    """Draw a point's label, on that side of it where there is room."""
    left = x.pixel(point.x)
    is_right = left > (x.start + x.stop) / 2
    return (
        f'<text x="{left + (-8 if is_right else 8):.1f}" y="{y.pixel(point.y) - 6:.1f}" font-size="11" '
        f'text-anchor="{"end" if is_right else "start"}">{point.title.partition(":")[0]}</text>'
    )


def _line(points: Sequence[Point], x: Axis, y: Axis, dashes: str = "") -> str:
    if len(points) < 2:
        return ""
    ordered = sorted(points, key=lambda point: point.x)
    path = "L".join(f"{x.pixel(point.x):.1f} {y.pixel(point.y):.1f}" for point in ordered)
    return f'<path d="M{path}" fill="none" stroke="currentColor" stroke-opacity=".5" stroke-dasharray="{dashes}"/>'
