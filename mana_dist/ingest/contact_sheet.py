"""A picture of random samples of a dataset, so that a person sees what was made."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mana_dist import pictures, storage
from mana_dist.data.degradation import bicubic_upsample
from mana_dist.data.degradation.recipe import Recipe
from mana_dist.data.degradation.recipe_file import recipe_of
from mana_dist.data.manifest import Manifest, Shard
from mana_dist.data.samples import pixels
from mana_dist.data.shard_reader import ShardReader
from mana_dist.errors import UserError
from mana_dist.pictures import Frame, Panel

SHEET_NAME = "contact_sheet.png"

_SIDE = pictures.LEAST_WIDTH
"""Side of every panel, pixels."""

_CELLS_PER_ROW = 3
_READERS = 4  # each holds one decoded row group


def write(uri: str, manifest: Manifest, count: int = 24, seed: int = 0) -> str:
    """Write ``contact_sheet.png`` beside the manifest: ``count`` random samples of all sources, in dataset order.

    A sample's cell shows its HR frame as a whole, shrunk to fit, and side by side, LR pixels enlarged by repeating
    them, the part in which bicubic upscaling of the LR centre is farthest from HR. Its caption is clip, frame number
    and flow; where a recipe made LR, a line below says what it drew for that frame. Reads one row group per sample at
    most. The same dataset gives the same bytes.

    Returns:
        The picture's URI.

    Raises:
        UserError: the dataset holds no samples, or a shard cannot be read.
    """
    rows: dict[tuple[Shard, int], list[int]] = defaultdict(list)
    for shard, group, row in _choose(manifest, count, seed):
        rows[shard, group].append(row)
    reader = ShardReader(uri, manifest)
    with ThreadPoolExecutor(_READERS) as readers:
        recipe = None if manifest.recipe is None else recipe_of(manifest.recipe)
        cells = list(chain.from_iterable(readers.map(lambda place: _cells(reader, place, rows[place], recipe), rows)))
    sheet = storage.join(uri, SHEET_NAME)
    storage.write_bytes(sheet, pictures.to_png(_grid(cells)))
    return sheet


def _choose(manifest: Manifest, count: int, seed: int) -> Iterator[tuple[Shard, int, int]]:
    """Choose samples as evenly from all sources as there are samples of each: a long one must not fill the sheet.

    Yields:
        The shard, number of the row group in it, number of the row in that.
    """
    ends = list(accumulate(shard.rows for shard in manifest.shards))
    if not ends or not ends[-1]:
        raise UserError("the dataset holds no samples: nothing to show on a contact sheet")
    sources = {name: number for number, name in enumerate({shard.unit: None for shard in manifest.shards})}
    source = np.repeat([sources[shard.unit] for shard in manifest.shards], [shard.rows for shard in manifest.shards])
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(ends[-1])
    by_source = drawn[np.argsort(source[drawn], kind="stable")]
    turn = np.arange(ends[-1]) - np.searchsorted(source[by_source], source[by_source])  # within its source
    for number in sorted(by_source[np.lexsort((rng.random(ends[-1]), turn))[:count]]):
        position = int(np.searchsorted(ends, number, side="right"))
        shard = manifest.shards[position]
        group, row = divmod(int(number) - (ends[position] - shard.rows), shard.group_rows)
        yield shard, group, row


def _cells(reader: ShardReader, place: tuple[Shard, int], rows: Sequence[int], recipe: Recipe | None) -> list[Frame]:
    columns = ["lr", "hr", "clip", "centre", "flow", "source"]
    table = reader.table(*place, columns)
    lr, hr = pixels(table, "lr"), pixels(table, "hr")
    clip, centre, flow, source = (table[column].to_pylist() for column in columns[2:])
    middle = lr.shape[1] // 2
    cells = [_cell(lr[row, middle], hr[row], f"{clip[row]}:{centre[row]}", flow[row]) for row in rows]
    if recipe is None:
        return cells
    return [_with_drawn(cell, recipe, source[row], centre[row]) for cell, row in zip(cells, rows, strict=True)]


def _cell(lr: Frame, hr: Frame, name: str, flow: float) -> Frame:
    scale = hr.shape[0] // lr.shape[0]
    region = pictures.most_different_region(bicubic_upsample(lr, scale), hr, scale, _SIDE)
    return pictures.row(
        [
            Panel(name, _fit(hr)),
            Panel(f"LR, flow {flow:.2f} px/frame", _fit(region.of_lr(lr).repeat(scale, 0).repeat(scale, 1))),
            Panel("HR", _fit(region.of(hr))),
        ]
    )


def _with_drawn(cell: Frame, recipe: Recipe, clip: str, number: int) -> Frame:
    line = np.full((1, cell.shape[1], 3), pictures.BACKGROUND, np.uint8)
    return pictures.column([cell, pictures.row([Panel(recipe.described(clip, number), line)])])


def _fit(frame: Frame) -> NDArray[np.uint8]:
    """``frame`` in the middle of a square panel: shrunk, or enlarged by repeating pixels a whole number of times."""
    height, width = frame.shape[:2]
    image, longer = Image.fromarray(frame), max(height, width)
    if longer > _SIDE:
        size = (max(1, round(width * _SIDE / longer)), max(1, round(height * _SIDE / longer)))
        image = image.resize(size, Image.Resampling.BOX)
    else:
        factor = _SIDE // longer
        image = image.resize((factor * width, factor * height), Image.Resampling.NEAREST)
    panel = Image.new("RGB", (_SIDE, _SIDE), pictures.BACKGROUND)
    panel.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return np.asarray(panel)


def _grid(cells: Sequence[Frame]) -> Frame:
    height, width = cells[0].shape[:2]
    rows, gap = -(-len(cells) // _CELLS_PER_ROW), 3 * pictures.GAP
    columns = min(len(cells), _CELLS_PER_ROW)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), pictures.BACKGROUND)
    for number, cell in enumerate(cells):
        row, column = divmod(number, _CELLS_PER_ROW)
        sheet.paste(Image.fromarray(cell), (column * (width + gap), row * (height + gap)))
    return np.asarray(sheet)
