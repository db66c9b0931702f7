"""Tables of reports as HTML, with numbers as shown, the best two of a column marked."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from mana_dist.report_pages.text import to_html

ROWS_SHOWN = 2000
_LONG = 16  # letters of a heading
KEY = (
    '<span class="best"><strong>best</strong></span>, <span class="second"><em>second best</em></span>; '
    "↑ larger is better, ↓ smaller is better"
)
"""The explanation of the marks, HTML."""


class Mark(Enum):
    """A number's place in its column."""

    NONE = ""
    BEST = "best"
    SECOND = "second best"


@dataclass(frozen=True)
class Cell:
    """A number as shown.

    Attributes:
        text: the number at the column's precision, ∞, or a dash where there is none.
        value: the number itself, to sort by; None where there is none.
        mark: only where at least two are compared.
    """

    text: str
    value: float | None = None
    mark: Mark = Mark.NONE


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: with the unit.
        meaning: explanation for a reader.
        kind: ``number``, or text: ``name``, or ``short`` names that need less room.
        over: a heading above this one, which neighbours share.
    """

    heading: str
    meaning: str = ""
    kind: Literal["name", "short", "number"] = "name"
    over: str = ""


@dataclass(frozen=True)
class Links:
    """Texts, each with the address that it leads to."""

    entries: tuple[tuple[str, str], ...]


Row = Sequence[str | Cell]
LinkedRow = Sequence[str | Cell | Links]


@dataclass(frozen=True)
class Group:
    """Rows below a title of their own.

    Attributes:
        title: what they are of.
        size: how many things, in words.
        rows: with a text or a number for every column.
    """

    title: str
    size: str
    rows: Sequence[Row]


Kind = Literal["means", "sortable", "entries", "protocol"]
"""How a table looks. The first text of a row of ``means`` or of a ``protocol`` is the row's heading."""


def table(caption: str, columns: Sequence[Column], rows: Sequence[LinkedRow], kind: Kind = "means") -> str:
    """Return a table that scrolls where it is wider than the window; nothing without rows.

    Args:
        caption: what it shows.
        columns: in order.
        rows: with something for every column; :data:`ROWS_SHOWN` are shown.
        kind: how it looks.
    """
    if not rows:
        return ""
    more = f'<p class="key">and {len(rows) - ROWS_SHOWN} more</p>' if len(rows) > ROWS_SHOWN else ""
    return _whole(caption, columns, _body(rows[:ROWS_SHOWN], columns, kind), kind) + more


def grouped(caption: str, columns: Sequence[Column], groups: Sequence[Group]) -> str:
    """Return a table of means like :func:`table`'s, of groups of rows."""
    bodies = [_body(group.rows, columns, "means", _title(group, len(columns))) for group in groups]
    return _whole(caption, columns, "".join(bodies), "means")


def scrollable(label: str, content: str) -> str:
    """Let content scroll that is wider than the window, by keys too; ``label`` says what it is."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{to_html(label)}">{content}</div>'


def _whole(caption: str, columns: Sequence[Column], bodies: str, kind: Kind) -> str:
    head = f"<caption>{to_html(caption)}</caption><thead>{_head(columns)}</thead>"
    return scrollable(caption, f'<table class="{kind}">{head}{bodies}</table>')


def _body(rows: Sequence[LinkedRow], columns: Sequence[Column], kind: Kind, title: str = "") -> str:
    named = kind in ("means", "protocol")
    return f"<tbody>{title}{''.join(_row(row, columns, named) for row in rows)}</tbody>"


def _head(columns: Sequence[Column]) -> str:
    line = "".join(
        f'<th scope="col" class="{column.kind}" title="{to_html(column.meaning or column.heading)}">'
        f"{_unbroken(to_html(column.heading))}</th>"
        for column in columns
    )
    if not any(column.over for column in columns):
        return f"<tr>{line}</tr>"
    groups = [(over, len(list(some))) for over, some in itertools.groupby(columns, lambda column: column.over)]
    above = "".join(
        f'<th scope="colgroup" colspan="{size}">{to_html(over)}</th>' if over else f'<td colspan="{size}"></td>'
        for over, size in groups
    )
    return f"<tr>{above}</tr><tr>{line}</tr>"


def _unbroken(heading: str) -> str:
    """Break a long heading into two lines; the style prevents other breaks."""
    heading = heading.replace(" over ", " over<br>")
    if "<br>" not in heading and len(heading) > _LONG:
        heading = heading.replace(" (", "<br>(")
    return heading.replace(" (", "&nbsp;(").replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓")


def _title(group: Group, width: int) -> str:
    text = f"<bdi>{to_html(group.title)}</bdi> <small>{to_html(group.size)}</small>"
    return f'<tr class="group"><th colspan="{width}" scope="rowgroup">{text}</th></tr>'


def _row(row: LinkedRow, columns: Sequence[Column], named: bool) -> str:
    cells = []
    for place, (content, column) in enumerate(zip(row, columns, strict=True)):
        if isinstance(content, Cell):
            cells.append(_number(content))
        elif isinstance(content, Links):
            links = ", ".join(f'<a href="{to_html(address)}">{to_html(text)}</a>' for text, address in content.entries)
            cells.append(f'<td class="{column.kind}">{links}</td>')
        elif named and not place:
            cells.append(f'<th scope="row" class="name"><bdi>{to_html(content)}</bdi></th>')
        else:
            cells.append(f'<td class="{column.kind}"><bdi>{to_html(content)}</bdi></td>')
    return f"<tr>{''.join(cells)}</tr>"


def _number(shown: Cell) -> str:
    value = "" if shown.value is None else f' data-value="{shown.value!r}"'
    text = to_html(shown.text)
    if shown.mark is Mark.BEST:
        return f'<td class="number best" title="best"{value}><strong>{text}</strong></td>'
    if shown.mark is Mark.SECOND:
        return f'<td class="number second" title="second best"{value}><em>{text}</em></td>'
    return f'<td class="number"{value}>{text}</td>'
