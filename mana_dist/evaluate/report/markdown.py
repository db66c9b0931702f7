"""The report as Markdown: the tables for a README or a console, and the file report.md."""

from collections.abc import Callable, Sequence
from dataclasses import fields

from mana_dist.evaluate.protocol import DatasetProtocol, MethodSource, Protocol
from mana_dist.evaluate.report import metrics_table
from mana_dist.evaluate.results import Evaluation
from mana_dist.progress import count, some
from mana_dist.report_pages.tables import Cell, Group, Mark, Row
from mana_dist.report_pages.text import to_markdown

LEGEND = "**best**, _second best_; ↑ larger is better, ↓ smaller is better"
CLIPS_SHOWN = 200
NAMES_SHOWN = 20


def tables(evaluation: Evaluation, escape: Callable[[str], str] = to_markdown) -> str:
    """Return the methods' means, a table per dataset, each under a heading; they can be read on a console.

    Args:
        evaluation: the results.
        escape: makes names and notes safe to show where the tables go.
    """
    headings = [column.heading for column in metrics_table.columns(evaluation)]
    parts = [_titled(group, headings, escape) for group in metrics_table.groups(evaluation)]
    large = metrics_table.top_motion(evaluation)
    if large is not None:
        parts.append(_titled(large, headings, escape))
    if len(evaluation.methods) > 1:
        parts.append(LEGEND)
    parts += [escape(note) for note in metrics_table.footnotes(evaluation)]
    return "\n\n".join(parts)


def report(evaluation: Evaluation, pictures: Sequence[tuple[str, str]]) -> str:
    """Return the text of ``report.md``.

    Args:
        evaluation: the results.
        pictures: what each picture shows, and its file's name beside the report.
    """
    sections = [
        f"# Evaluation\n\n{tables(evaluation)}",
        *(f"![{to_markdown(what)}]({name})" for what, name in pictures),
        "## Protocol\n\n" + "\n".join(_protocol(evaluation.protocol)),
        f"## Clips\n\n{_clips(evaluation)}",
    ]
    notes = [_note(text, names) for text, names in metrics_table.notes_by_text(evaluation).items()]
    if notes:
        sections.append("## Notes\n\n" + "\n".join(notes))
    return "\n\n".join(sections) + "\n"


def _protocol(protocol: Protocol) -> list[str]:
    """Return a line for each dataset and method, and for every other choice."""
    kinds = (("dataset", protocol.datasets), ("method", protocol.models))
    named = [(kind, "; ".join(map(" ".join, parts(entry)))) for kind, entries in kinds for entry in entries]
    return [f"* {name}: {to_markdown(value)}" for name, value in [*named, *choices(protocol)]]


def choices(protocol: Protocol) -> list[tuple[str, str]]:
    """Return the protocol's choices by name, as text, but for those of each dataset and model."""
    return [(name, _as_text(value)) for name, value in protocol.entries().items() if name not in {"datasets", "models"}]


def parts(entry: DatasetProtocol | MethodSource) -> list[tuple[str, str]]:
    """Return the choices of one dataset or model, by name, as text; those left empty are not there."""
    found = [(field.name, getattr(entry, field.name)) for field in fields(entry)]
    return [(name, _as_text(value)) for name, value in found if value not in ("", (), None)]


def _as_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _titled(group: Group, headings: Sequence[str], escape: Callable[[str], str]) -> str:
    rows = [_cells(row, escape) for row in group.rows]
    return f"{escape(group.title)} ({group.size}):\n\n{_aligned([['method', *headings], *rows])}"


def _clips(evaluation: Evaluation) -> str:
    found, left_out = metrics_table.clip_rows(evaluation, CLIPS_SHOWN)
    rows = [[column.heading for column in metrics_table.clip_columns(evaluation)]]
    rows += [_cells(row, to_markdown) for row in found]
    more = f"\n\nand {count(left_out, 'clip')} more, where the methods differ less, in metrics.json"
    return _aligned(rows) + (more if left_out else "")


def _note(text: str, names: Sequence[str]) -> str:
    return f"* {to_markdown(text)}: {some(list(map(to_markdown, names)), NAMES_SHOWN)}"


def _cells(row: Row, escape: Callable[[str], str]) -> list[str]:
    return [marked(content) if isinstance(content, Cell) else escape(content) for content in row]


def marked(cell: Cell) -> str:
    """Return a cell's text, in bold type if it is the best, in italics if it is the second best."""
    sign = {Mark.BEST: "**", Mark.SECOND: "_", Mark.NONE: ""}[cell.mark]
    return f"{sign}{cell.text}{sign}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |" for cells in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
