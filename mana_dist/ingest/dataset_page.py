"""A finished dataset as one HTML page that needs nothing else: what is in it, and what was left out and why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mana_dist import pictures, report_pages, storage
from mana_dist.data.manifest import SETTINGS, Manifest, load_manifest
from mana_dist.data.shard_reader import ShardReader
from mana_dist.errors import UserError
from mana_dist.ingest import contact_sheet, sources_table
from mana_dist.ingest.dataset import PAGE_NAME
from mana_dist.ingest.sources_table import SourceRow
from mana_dist.progress import count
from mana_dist.report_pages import Section, svg_plots
from mana_dist.report_pages.tables import Cell, Column, Row, table
from mana_dist.report_pages.text import to_html

_BARS = 24
_INCHES = 2.4
_READERS = 16
_SETTING = (Column("setting"), Column("value"))
_COLUMNS = ("frames", "samples", "cuts", "duplicates", "flat", "wrong_motion", "detail", "blockiness", "blur")


def write(uri: str) -> str:
    """Write ``report.html`` into a finished dataset's folder, and return its URI.

    Raises:
        UserError: no manifest that can be read, no table of sources, or a shard that cannot be read.
        OSError: it cannot be written.
    """
    manifest = load_manifest(uri)
    if not manifest.sources:
        raise UserError(f"{uri}: its samples were made in Python, it has no table of sources to show")
    rows = sources_table.read(uri, manifest.sources)
    reader = ShardReader(uri, manifest)
    with ThreadPoolExecutor(_READERS) as threads:
        flows = list(threads.map(lambda shard: reader.column(shard, "flow").to_numpy(), manifest.shards))
    try:
        sheet = storage.read_bytes(storage.join(uri, contact_sheet.SHEET_NAME))
    except FileNotFoundError:
        sheet = storage.read_bytes(contact_sheet.write(uri, manifest))
    made = storage.join(uri, PAGE_NAME)
    text = page(uri, manifest, rows, np.concatenate([*flows, np.empty(0)]).tolist(), sheet)
    storage.write_bytes(made, text.encode())
    return made


def page(uri: str, manifest: Manifest, rows: Sequence[SourceRow], flows: Sequence[float], sheet: bytes) -> str:
    """Return the page.

    Args:
        uri: the dataset's.
        manifest: its manifest.
        rows: its table of sources.
        flows: every sample's motion.
        sheet: its contact sheet, a PNG file.
    """
    usable = [row for row in rows if row.samples]
    drawn = [histogram(flows, "motion of samples, LR pixels per frame", "samples")]
    for name in ("detail", "blockiness", "blur"):
        values = [value for row in usable if (value := getattr(row, name)) is not None]
        drawn.append(histogram(values, f"{name} of clips that gave samples", "clips"))
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    summary = (
        f"<bdi>{to_html(uri)}</bdi> · {count(manifest.samples, 'sample')} of {count(manifest.clips, 'clip')} · "
        f"{size:.1f} MB · {len(manifest.rejected)} rejected"
    )
    picture = f'<img src="{pictures.png_data_uri(sheet)}" alt="random samples" style="width:100%;height:auto">'
    chosen = ((name.replace("_", " "), getattr(manifest, name)) for name in SETTINGS)
    settings = [(name, "any" if value is None else str(value)) for name, value in chosen]
    sections = [
        Section(
            "Sizes", table("Samples by size of the HR frames", _numbers("HR", ["samples"]), list(_sizes(manifest)))
        ),
        Section("Histograms", report_pages.figures(drawn)),
        Section("Some of them", picture, "Pictures"),
        Section("What was left out, and why", _refused(manifest) + _left_out(rows), "Left out"),
        Section("Clips", _clips(rows)),
        Section("How they were made", table("Settings of the ingest", _SETTING, settings, "protocol"), "Settings"),
    ]
    return report_pages.page("Training samples", summary, sections)


def histogram(values: Sequence[float], label: str, what: str) -> tuple[str, str | None]:
    """Return the caption, and a plot of how many values lie where, in bars; None where there are none.

    Args:
        values: finite numbers.
        label: the caption.
        what: they are, for the other axis.
    """
    if not values:
        return label, None
    plot = svg_plots.axes(_INCHES, "", what)
    plot.hist(values, bins=_BARS, color=svg_plots.COLOURS[0])
    plot.locator_params(axis="y", integer=True)
    figure = plot.get_figure(root=True)
    return label, None if figure is None else svg_plots.to_svg(figure, label)


def _numbers(first: str, headings: Iterable[str]) -> list[Column]:
    return [Column(first), *(Column(heading, kind="number") for heading in headings)]


def _sizes(manifest: Manifest) -> Iterator[Row]:
    sizes: Counter[tuple[int, int]] = Counter()
    for shard in manifest.shards:
        sizes[manifest.scale * shard.width, manifest.scale * shard.height] += shard.rows
    for (width, height), number in sizes.most_common():
        yield f"{width}x{height}", Cell(str(number), number)


def _refused(manifest: Manifest) -> str:
    if not manifest.rejected:
        return "<p>No source was rejected.</p>"
    rows = [(item.source, item.reason) for item in manifest.rejected]
    return table(f"{count(len(rows), 'source')} rejected", [Column("source"), Column("reason")], rows)


def _left_out(rows: Sequence[SourceRow]) -> str:
    whys = {
        "duplicates": "frames that repeat the one before",
        "flat": "samples without detail",
        "wrong_motion": "samples that move too little or too much",
    }
    sums = {why: sum(getattr(row, name) for row in rows) for name, why in whys.items()}
    parts: list[Row] = [(why, Cell(str(number), number)) for why, number in sums.items()]
    return table("Within clips", _numbers("what", ["number"]), parts)


def _clips(rows: Sequence[SourceRow]) -> str:
    cells: list[Row] = [
        (row.clip, *(_number(getattr(row, name)) for name in _COLUMNS), row.note)
        for row in sorted(rows, key=lambda row: -row.samples)
    ]
    columns = [*_numbers("clip", (name.replace("_", " ") for name in _COLUMNS)), Column("note")]
    return table("Each clip, those with most samples first", columns, cells, "sortable")


def _number(value: float | None) -> Cell:
    return Cell("" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}", value)
