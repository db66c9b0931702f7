"""The sweep's files: its table as Markdown, CSV and a page, and its plots."""

import re

from mana_dist import storage
from mana_dist.evaluate.report.svg_plots import standalone
from mana_dist.evaluate.report.text import to_html
from mana_dist.sweep import results_table, sweep_plots
from mana_dist.sweep.results_table import Table
from mana_dist.sweep.variations import Sweep

MARKDOWN_FILE, CSV_FILE, PAGE_FILE = "table.md", "table.csv", "report.html"
QUALITY_FILE, TIME_FILE, MEMORY_FILE = "quality.svg", "time_per_step.svg", "memory.svg"
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1250px;padding:0 1em}"
    "table{border-collapse:collapse}th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #8884}"
    "th[scope=row]{text-align:left}strong{color:#d55e00}em{color:#0072b2}"
    ".plots{display:flex;flex-wrap:wrap;gap:1em}.plots svg{width:400px}.scroll{overflow-x:auto}"
    ":root{color-scheme:light dark}"
)


def publish(folder: str, sweep: Sweep, found: Table, lines: tuple[str, ...]) -> list[str]:
    """Write everything to ``folder``, with ``lines`` below the table; return the files' URIs, the page's first."""
    drawn = {
        QUALITY_FILE: sweep_plots.quality(found, sweep.axis),
        TIME_FILE: sweep_plots.step_time(found),
        MEMORY_FILE: sweep_plots.memory(found),
    }
    svgs = {name: svg for name, svg in drawn.items() if svg is not None}
    files = {
        PAGE_FILE: page(found, list(svgs.values()), lines).encode(),
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


def page(found: Table, svgs: list[str], lines: tuple[str, ...]) -> str:
    """Return one HTML page that needs no other file."""
    notes = "".join(f"<li>{to_html(row.setting.label)}: {to_html(row.note)}</li>" for row in found.rows if row.note)
    paragraphs = "".join(f"<p>{to_html(line)}</p>" for line in lines)
    key = re.sub(
        r"_(.+?)_", r"<em>\1</em>", results_table.legend(found).replace("**best**", "<strong>best</strong>"), count=1
    )
    front = "<p>The dashed line is the Pareto front: no other setting is better at no more cost.</p>" if svgs else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{to_html(found.title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{to_html(found.title)}</h1><p>{key}</p>"
        f'<div class="scroll">{results_table.to_html_table(found)}</div><ul>{notes}</ul>{paragraphs}'
        f'<div class="plots">{"".join(svgs)}</div>{front}</body></html>\n'
    )
