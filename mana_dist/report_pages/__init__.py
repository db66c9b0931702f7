"""The look that all reports share: one HTML page that needs no server, no network and no other file.

A page is complete without its script, which adds sorting to tables, and a slider and zoom to crops that are compared. A
content security policy lets that script run and nothing be fetched, so that no name of a clip or method can run code.
"""

import base64
import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from string import Template

import mana_dist
from mana_dist.arguments import command
from mana_dist.report_pages.tables import scrollable
from mana_dist.report_pages.text import to_html


@dataclass(frozen=True)
class Section:
    """A part of a page, which its first lines link to.

    Attributes:
        title: its heading.
        content: HTML, safe to show.
        link: short name in the page's first lines; empty: the title.
    """

    title: str
    content: str
    link: str = ""

    @property
    def anchor(self) -> str:
        """Return the section's name within the page."""
        return (self.link or self.title).lower().replace(" ", "-")


def page(title: str, summary: str, sections: Sequence[Section]) -> str:
    """Return a whole page, with the date and the command that it was made by at its end.

    Args:
        title: text.
        summary: HTML of a line below the title.
        sections: in order; those without content are left out.

    Returns:
        HTML that can be written as UTF-8.
    """
    shown = [section for section in sections if section.content]
    files = resources.files(__package__)
    style, script, outline = (
        (files / name).read_text("utf-8") for name in ("report_page.css", "report_page.js", "report_page.html")
    )
    return Template(outline).substitute(
        style=style,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=to_html(title),
        summary=summary,
        links=" ".join(f'<a href="#{one.anchor}">{to_html(one.link or one.title)}</a>' for one in shown),
        sections="\n".join(map(_section, shown)),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, mana_dist {mana_dist.__version__}",
        command=to_html(command(sys.orig_argv)),
    )


def figures(plots: Iterable[tuple[str, str | None]]) -> str:
    """Return plots with their captions, side by side where there is room; nothing for those that are None."""
    drawn = "".join(
        f'<figure class="plot">{scrollable(caption, svg)}<figcaption>{to_html(caption)}</figcaption></figure>'
        for caption, svg in plots
        if svg is not None
    )
    return f'<div class="plots">{drawn}</div>' if drawn else ""


def listed(entries: Iterable[str], kind: str = "notes") -> str:
    """Return entries, which are HTML, as a list; nothing without any."""
    items = "".join(f"<li>{entry}</li>" for entry in entries)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def _section(section: Section) -> str:
    name = section.anchor
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{to_html(section.title)}</h2>\n'
        f"{section.content}\n</section>"
    )
