"""The sweep's files: its table as Markdown, CSV and a page, and its plots."""

from collections.abc import Mapping

from mana_dist import report_pages, storage
from mana_dist.progress import count
from mana_dist.report_pages import Section, figures, listed
from mana_dist.report_pages.svg_plots import standalone, to_svg
from mana_dist.report_pages.tables import KEY
from mana_dist.report_pages.text import to_html
from mana_dist.sweep import results_table, sweep_plots
from mana_dist.sweep.results_table import Table
from mana_dist.sweep.variations import Sweep

MARKDOWN_FILE, CSV_FILE, PAGE_FILE = "table.md", "table.csv", "report.html"
QUALITY_FILE, TIME_FILE, MEMORY_FILE = "quality.svg", "time_per_step.svg", "memory.svg"


def publish(folder: str, sweep: Sweep, found: Table, lines: tuple[str, ...]) -> list[str]:
    """Write everything to ``folder``, with ``lines`` below the table; return the files' URIs, the page's first."""
    drawn = {
        QUALITY_FILE: sweep_plots.quality(found, sweep.axis),
        TIME_FILE: sweep_plots.step_time(found),
        MEMORY_FILE: sweep_plots.memory(found),
    }
    svgs = {name: to_svg(made, _what(name)) for name, made in drawn.items() if made is not None}
    files = {
        PAGE_FILE: page(found, svgs, lines).encode(),
        MARKDOWN_FILE: markdown(found, list(svgs), lines).encode(),
        CSV_FILE: results_table.to_csv(found).encode(),
        **{name: standalone(svg) for name, svg in svgs.items()},
    }
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)
    return [storage.join(folder, name) for name in files]


def markdown(found: Table, pictures: list[str], lines: tuple[str, ...]) -> str:
    """Return the text of ``table.md``."""
    parts = [f"# {found.title}", results_table.to_markdown_text(found).rstrip(), *lines]
    return "\n\n".join([*parts, *(f"![{name.partition('.')[0]}]({name})" for name in pictures)]) + "\n"


def page(found: Table, svgs: Mapping[str, str], lines: tuple[str, ...]) -> str:
    """Return one HTML page that needs no other file, with the plots by their files' names."""
    notes = [f"{to_html(row.setting.label)}: {to_html(row.note)}" for row in found.rows if row.note]
    key = f'<p class="key">{KEY}{results_table.spread(found)}</p>'
    results = [results_table.to_html_table(found), key, listed(notes), *(f"<p>{to_html(line)}</p>" for line in lines)]
    front = "The dashed line is the Pareto front: no other setting is better at no more cost."
    plots = figures(
        (f"PSNR against {_what(name)}." + ("" if name == QUALITY_FILE else f" {front}"), svg)
        for name, svg in svgs.items()
    )
    return report_pages.page(
        found.title,
        f"{count(len(found.rows), 'setting')} · {count(found.seeds, 'seed')} each",
        [Section("Results", "".join(results)), Section("Plots", plots)],
    )


def _what(name: str) -> str:
    """Return what a plot's file shows PSNR against."""
    return {QUALITY_FILE: "the setting", TIME_FILE: "time per step", MEMORY_FILE: "memory"}[name]
