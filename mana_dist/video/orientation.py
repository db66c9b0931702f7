"""Pictures upright: a video's display matrix applied to its pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX = "DISPLAYMATRIX"


def upright(pixels: NDArray[Any], frame: Any) -> NDArray[Any]:
    """A frame's pixels as players show them.

    Args:
        pixels: (H, W, C), as coded.
        frame: the decoded PyAV frame that they are of.

    Returns:
        (H, W, C), or (W, H, C) after a quarter turn; contiguous.
    """
    # The turn is that of the x axis; a mirrored picture's y axis goes the other way.
    return np.ascontiguousarray(np.rot90(pixels[::-1] if _is_mirrored(frame) else pixels, quarter_turns(frame)))


def quarter_turns(frame: Any) -> int:
    """Of the frame's display matrix, 0 to 3, counterclockwise as np.rot90 counts them."""
    return round(frame.rotation / 90) % 4


def _is_mirrored(frame: Any) -> bool:
    data = frame.side_data.get(_MATRIX)
    if data is None:
        return False
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, "<i4")[:5])
    return a * d < b * c
