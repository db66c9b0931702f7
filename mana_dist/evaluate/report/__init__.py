"""The report of an evaluation: tables on the console and in Markdown, plots, and one page that needs no server."""

from collections.abc import Sequence

from mana_dist import pictures, storage
from mana_dist.evaluate.report import evaluation_page, evaluation_plots, markdown
from mana_dist.evaluate.results import Evaluation, Example
from mana_dist.report_pages.svg_plots import standalone
from mana_dist.report_pages.text import clean

PAGE_FILE, MARKDOWN_FILE, PICTURE_FILE = "report.html", "report.md", "side_by_side.png"
GAIN_FILE, PSNR_FILE = "gain_over_motion.svg", "psnr_per_clip.svg"
FILES = (PAGE_FILE, MARKDOWN_FILE, PSNR_FILE, GAIN_FILE, PICTURE_FILE)
"""Names of all files that a report may have."""
ROWS_SHOWN = 4  # clips in the picture

__all__ = ["FILES", "publish", "table"]


def publish(out: str, evaluation: Evaluation) -> list[str]:
    """Write the report to the folder ``out``: report.html, report.md and the pictures that it shows.

    The picture of crops is left out where there are no examples, a plot where it would show no point.

    Args:
        out: URI of a folder; made where it is missing.
        evaluation: of at least one clip.

    Returns:
        The files' URIs, the page's first. The reports are written after the pictures that they show.

    Raises:
        OSError: it cannot be written.
    """
    examples = [clip[0] for clip in evaluation_page.by_clip(evaluation.examples)]
    shown: list[tuple[str, str, bytes]] = []
    if examples:
        rows = [_row(example, evaluation.methods) for example in examples[:ROWS_SHOWN]]
        shown.append(("side by side", PICTURE_FILE, pictures.to_png(pictures.column(rows))))
    svgs = evaluation_plots.svgs(evaluation)
    names = {evaluation_plots.GAIN: GAIN_FILE, evaluation_plots.PSNR: PSNR_FILE}
    shown += [(what, names[what], standalone(svg)) for what, svg in svgs.items()]
    text = markdown.report(evaluation, [(what, name) for what, name, _ in shown])
    files = [(name, data) for _, name, data in shown]
    files += [(MARKDOWN_FILE, text.encode()), (PAGE_FILE, evaluation_page.page(evaluation, svgs).encode())]
    for name, data in files:
        storage.write_bytes(storage.join(out, name), data)
    return [storage.join(storage.resolve(out), name) for name, _ in reversed(files)]


def table(evaluation: Evaluation) -> str:
    """Return the methods' means as text for a console: a table per dataset, and one of the large-motion clips."""
    return markdown.tables(evaluation, clean)


def _row(example: Example, methods: Sequence[str]) -> pictures.Frame:
    compared = [pictures.Panel(name, image) for name, image in zip(methods, example.outputs, strict=True)]
    where = f"LR ({example.clip}, frame {example.frame})"
    return pictures.row([pictures.Panel(where, example.lr), *compared, pictures.Panel("HR", example.hr)])
