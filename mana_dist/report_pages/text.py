"""Text from outside (names of clips, methods, URIs) made safe to show as HTML and Markdown, and shortened."""

import html
import re
import unicodedata


def clean(text: str) -> str:
    """Replace control characters and lone surrogates, which files must not hold, by U+FFFD.

    File names may have both: a name that is no UTF-8 reaches Python with surrogates, which cannot be written as UTF-8,
    and XML forbids most control characters.
    """
    return "".join("\ufffd" if unicodedata.category(letter) in {"Cc", "Cs"} else letter for letter in text)


def shortened(text: str, width: int) -> str:
    """Return the text, or an ellipsis and its end, which says more about a checkpoint's path than the beginning.

    Args:
        text: to show in one line.
        width: room in Latin letters; a Chinese, Japanese or Korean one takes two.
    """
    widths = [2 if unicodedata.east_asian_width(letter) in {"F", "W"} else 1 for letter in text]
    if sum(widths) <= width:
        return text
    return "…" + next((text[start:] for start in range(len(text)) if sum(widths[start:]) < width), "")


def to_html(text: str) -> str:
    """Return the text as HTML or XML, for an element or a quoted attribute."""
    return html.escape(clean(text), quote=True)


def to_markdown(text: str) -> str:
    """Return one line of Markdown that shows the text as it is, also in a table's cell.

    Only what would be markup is escaped, so that names can be read on a console: not underscores between letters or
    digits, nor brackets without a link's target.
    """
    escaped = re.sub(r"([\\`*|~$]|(?<=\])[(\[]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", clean(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
