"""Plots of a sweep: quality against the setting, and against what a step costs, with the Pareto front."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mana_dist.report_pages import svg_plots
from mana_dist.sweep.results_table import COLUMNS, Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, float]  # cost, or setting, and PSNR in dB


def quality(table: Table, axis: str) -> "Figure | None":
    """Plot PSNR of the last group of columns (over all clips) against the setting; None where nothing has finished."""
    return _plot(table, lambda row: row.setting.x, axis, front=False)


def step_time(table: Table) -> "Figure | None":
    """Plot PSNR against the seconds of a step."""
    return _plot(table, lambda row: row.step_seconds.mean, "seconds per step of the last stage", front=True)


def memory(table: Table) -> "Figure | None":
    """Plot PSNR against a worker's memory."""

    def gib(row: Row) -> float | None:
        return None if row.memory_bytes.mean is None else row.memory_bytes.mean / 2**30

    return _plot(table, gib, "GiB per worker", front=True)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front, by rising cost: the points without any other that is better at no more cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _plot(table: Table, cost: Callable[[Row], float | None], x_label: str, *, front: bool) -> "Figure | None":
    series: dict[str, list[Point]] = {row.setting.series: [] for row in table.rows}
    plot = svg_plots.axes(4.2, x_label, "PSNR (dB)")
    position = (len(table.datasets) - 1) * len(COLUMNS)
    for row in table.rows:
        psnr = row.values[position].mean if row.values else None
        x = cost(row)
        if psnr is not None and math.isfinite(psnr) and x is not None:
            series[row.setting.series].append((x, psnr))
            svg_plots.name_point(plot, row.setting.label, (x, psnr))
    for number, (name, points) in enumerate(series.items()):
        if points:
            svg_plots.scatter(plot, name, number, points)
    found = [point for points in series.values() for point in points]
    for line in filter(None, [pareto(found)] if front else map(sorted, series.values())):
        plot.plot(*zip(*line, strict=True), **svg_plots.DASHED)
    return svg_plots.with_legend(plot)
