"""Text from outside (names of clips, methods, URIs) made safe to show: as HTML, as Markdown, in little room."""

import html
import re
import unicodedata


def clean(text: str) -> str:
    """The text without what no file may hold: control characters and lone surrogates become U+FFFD.

    File names bring both: a name that is no UTF-8 reaches Python with surrogates, which cannot be written as UTF-8,
    and XML forbids most control characters.
    """
    return "".join("\ufffd" if unicodedata.category(letter) in {"Cc", "Cs"} else letter for letter in text)


def shortened(text: str, width: int) -> str:
    """The text, or its end behind an ellipsis: the end of a checkpoint's path tells more than its beginning.

    Args:
        text: to show in one line.
        width: room in Latin letters; a Chinese, Japanese or Korean one takes two.
    """
    widths = [2 if unicodedata.east_asian_width(letter) in {"F", "W"} else 1 for letter in text]
    if sum(widths) <= width:
        return text
    return "…" + next((text[start:] for start in range(len(text)) if sum(widths[start:]) < width), "")


def to_html(text: str) -> str:
    """The text as HTML or XML, in an element or in a quoted attribute."""
    return html.escape(clean(text), quote=True)


def to_markdown(text: str) -> str:
    """The text as one line of Markdown that shows it as it is, also in a table's cell.

    What is no markup where it stands stays as it is, for names to be legible on a console: underscores between letters
    or digits, brackets that are not followed by a link's target.
    """
    escaped = re.sub(r"([\\`*|~$]|(?<=\])[(\[]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", clean(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def counted(number: int, noun: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
