"""Comparison pictures: labelled panels side by side, and the part of a frame where two results differ most."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frame = NDArray[np.uint8]  # (H, W, 3) RGB

LABEL_HEIGHT = 22  # pixels
_FONT_SIZE = 15
GAP = 4  # pixels between panels
LEAST_WIDTH = 240  # narrower panels are enlarged by a whole factor
BACKGROUND = (24, 24, 24)


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        label: its caption.
        image: (H, W, 3) uint8, RGB; enlarged by nearest neighbour to the largest image of the row.
    """

    label: str
    image: Frame


def side_by_side(lr: Frame, bicubic: Frame, mana: Frame, hr: Frame) -> Frame:
    """Return one uint8 RGB picture of LR | bicubic | MANA | HR, labelled; LR has (h, w, 3), the others are HR."""
    return row([Panel("LR", lr), Panel("bicubic", bicubic), Panel("MANA", mana), Panel("HR", hr)])


def row(panels: Sequence[Panel]) -> Frame:
    """Return one uint8 RGB picture of the panels side by side, each under its label."""
    height = max(panel.image.shape[0] for panel in panels)
    width = max(panel.image.shape[1] for panel in panels)
    height, width = (side * -(-LEAST_WIDTH // width) for side in (height, width))
    canvas = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + LABEL_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT_SIZE)
    for position, panel in enumerate(panels):
        left = position * (width + GAP)
        canvas.paste(
            Image.fromarray(panel.image).resize((width, height), Image.Resampling.NEAREST), (left, LABEL_HEIGHT)
        )
        draw.text((left + 4, 2), _fitting(panel.label, width - 8, font), fill="white", font=font)
    return np.asarray(canvas)


def column(rows: Sequence[Frame]) -> Frame:
    """Return one picture of rows of any width, one below the other, aligned at the left."""
    width = max(picture.shape[1] for picture in rows)
    canvas = Image.new("RGB", (width, sum(picture.shape[0] + GAP for picture in rows) - GAP), BACKGROUND)
    top = 0
    for picture in rows:
        canvas.paste(Image.fromarray(picture), (0, top))
        top += picture.shape[0] + GAP
    return np.asarray(canvas)


def to_png(picture: Frame) -> bytes:
    """Return the PNG file of a (H, W, 3) uint8 RGB picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def to_data_uri(picture: Frame) -> str:
    """Return the ``data:`` URI of a (H, W, 3) uint8 RGB picture, for HTML: its PNG file in base64."""
    return png_data_uri(to_png(picture))


def png_data_uri(png: bytes) -> str:
    """Return the ``data:`` URI of a PNG file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@dataclass(frozen=True)
class Region:
    """A part of an HR frame; its sides and position are multiples of the scale, so that it has an LR counterpart.

    Attributes:
        top: first row, HR pixels.
        left: first column.
        height: rows.
        width: columns.
        difference: mean absolute difference of the two frames in it, on the scale to 255.
        scale: HR pixels to a LR pixel.
    """

    top: int
    left: int
    height: int
    width: int
    difference: float
    scale: int = 4

    def of(self, frame: Frame) -> Frame:
        """Return this part of an HR frame."""
        return frame[self.top : self.top + self.height, self.left : self.left + self.width]

    def overlaps(self, other: "Region") -> bool:
        """Return whether the two have a pixel in common."""
        across = self.left < other.left + other.width and other.left < self.left + self.width
        return across and self.top < other.top + other.height and other.top < self.top + self.height

    def of_lr(self, frame: Frame) -> Frame:
        """Return the corresponding part of an LR frame."""
        top, left, height, width = (side // self.scale for side in (self.top, self.left, self.height, self.width))
        return frame[top : top + height, left : left + width]


def most_different_region(a: Frame, b: Frame, scale: int = 4, side: int = 160) -> Region:
    """Return the region where two HR frames have the largest mean absolute difference.

    Args:
        a: (H, W, 3) uint8; H and W are multiples of ``scale``.
        b: of the same shape.
        scale: HR pixels to a LR pixel.
        side: side of the region in HR pixels, rounded down to a multiple of ``scale``; a smaller frame limits it.
    """
    return next(most_different_regions(a, b, scale, side))


def most_different_regions(a: Frame, b: Frame, scale: int = 4, side: int = 160) -> Iterator[Region]:
    """Yield regions where two HR frames differ, by falling difference, each as large as possible beside those before.

    The arguments are those of :func:`most_different_region`, which the first one is; regions do not overlap.
    """
    # On the LR grid: sums over the pixels of each LR pixel, then every window of them from a summed-area table.
    difference = np.abs(a.astype(np.int32) - b).sum(axis=2)
    rows, columns = difference.shape[0] // scale, difference.shape[1] // scale
    blocks = difference.reshape(rows, scale, columns, scale).sum(axis=(1, 3))
    table = np.zeros((rows + 1, columns + 1), np.int64)
    table[1:, 1:] = blocks.cumsum(0).cumsum(1)
    height, width = min(side // scale, rows), min(side // scale, columns)
    sums = table[height:, width:] - table[:-height, width:] - table[height:, :-width] + table[:-height, :-width]
    while True:
        top, left = map(int, np.unravel_index(int(sums.argmax()), sums.shape))
        if sums[top, left] < 0:  # all are taken
            return
        mean = float(sums[top, left]) / (height * width * scale**2 * 3)
        yield Region(top * scale, left * scale, height * scale, width * scale, mean, scale)
        sums[max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width] = -1


def _fitting(label: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the label, or an ellipsis and its end, which in a checkpoint's path is the distinctive part."""
    if font.getlength(label) <= width:
        return label
    ends = ("…" + label[start:] for start in range(1, len(label)))
    return next((end for end in ends if font.getlength(end) <= width), "")
