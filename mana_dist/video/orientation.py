"""Pictures as players show them: the container's crop and display matrix applied."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MATRIX = "DISPLAYMATRIX"


class Crop(NamedTuple):
    """Numbers of pixels that a container hides at the edges of a decoded frame, before it is turned."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return what is shown of (H, W, C) pixels."""
        height, width = pixels.shape[:2]
        return pixels[self.top : height - self.bottom, self.left : width - self.right]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that are shown of a frame."""
        return width - self.left - self.right, height - self.top - self.bottom


UNCROPPED = Crop()


def upright(pixels: NDArray[Any], frame: Any) -> NDArray[Any]:
    """Return a frame's pixels as players show them.

    Args:
        pixels: (H, W, C), as coded.
        frame: the decoded PyAV frame that they are of.

    Returns:
        (H, W, C), or (W, H, C) after a quarter turn; contiguous.
    """
    # The turn is that of the x axis; a mirrored picture's y axis goes the other way.
    return np.ascontiguousarray(np.rot90(pixels[::-1] if _is_mirrored(frame) else pixels, quarter_turns(frame)))


def quarter_turns(frame: Any) -> int:
    """Return the quarter turns of the frame's display matrix, 0 to 3, counterclockwise as np.rot90 counts them."""
    data = frame.side_data.get(_MATRIX)
    if data is not None and not np.frombuffer(data, "<i4")[:5].any():
        return 0  # no matrix at all: players show the picture as it is
    return round(frame.rotation / 90) % 4


def _is_mirrored(frame: Any) -> bool:
    data = frame.side_data.get(_MATRIX)
    if data is None:
        return False
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, "<i4")[:5])
    return a * d < b * c


def shown_size(frame: Any, crop: Crop) -> tuple[int, int]:
    """Return the width and height of a decoded PyAV frame as it is shown."""
    width, height = crop.size(frame.width, frame.height)
    return (height, width) if quarter_turns(frame) % 2 else (width, height)
