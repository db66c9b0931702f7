"""Which frames make up the window of a clip's frame, also at the clip's ends."""

from typing import Literal

Padding = Literal["reflection", "replicate", "reflection_circle", "circle"]


def window_indices(centre: int, length: int, frames: int, padding: Padding = "reflection") -> list[int]:
    """The ``frames`` frame numbers of the window around ``centre`` in a clip of ``length`` frames.

    Beyond the clip's ends, by the names that BasicSR and mmagic use; for centre 0, 5 frames, clip 0 1 2 3 ...:

    * ``reflection`` (the project's rule unless stated): mirrored about the end frame, 2 1 0 1 2. A clip too short to
      mirror once is mirrored again and again.
    * ``replicate``: the end frame repeated, 0 0 0 1 2.
    * ``reflection_circle``: the nearest frames not yet in the window, mirrored, 4 3 0 1 2.
    * ``circle``: the nearest frames not yet in the window, in order, 3 4 0 1 2.

    The circles need a clip at least as long as the window; a shorter one is mirrored.

    Args:
        centre: frame number in [0, length).
        length: frames in the clip, at least 1.
        frames: T, odd.
        padding: the rule's name.

    Returns:
        ``frames`` numbers in [0, length); the middle one is ``centre``.

    Raises:
        ValueError: ``centre`` lies outside the clip or ``frames`` is even.
    """
    if not 0 <= centre < length:
        raise ValueError(f"centre {centre} lies outside a clip of {length} frames")
    if frames < 1 or frames % 2 == 0:
        raise ValueError(f"frames must be odd and positive, got {frames}")
    radius = frames // 2
    window = range(centre - radius, centre + radius + 1)
    if padding == "replicate":
        return [min(max(index, 0), length - 1) for index in window]
    if padding == "circle" and length >= frames:
        return [index + frames * ((index < 0) - (index >= length)) for index in window]
    if padding == "reflection_circle" and length >= frames:
        return [_beyond_to_other_side(index, centre, length, radius) for index in window]
    return [_mirror(index, length) for index in window]


def _mirror(index: int, length: int) -> int:
    period = max(2 * (length - 1), 1)
    index %= period
    return min(index, period - index) if length > 1 else 0


def _beyond_to_other_side(index: int, centre: int, length: int, radius: int) -> int:
    if index < 0:
        return centre + radius - index
    if index >= length:
        return centre - radius - (index - length + 1)
    return index
