"""Called by MkDocs: a link to a file of the repository beside docs/ becomes its name, once the file is found."""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^]]+)\]\(\.\./([^)#]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page's text as the site shows it.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def named(match: re.Match[str]) -> str:
        text, path = match.groups()
        if not (Path(__file__).parents[1] / path).exists():
            raise FileNotFoundError(path)
        return f"`{path}`" if text == path else f"{text} (`{path}`)"

    return _LINK.sub(named, markdown)
