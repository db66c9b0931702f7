"""The comparison of LR frames that are given with a dataset with those that we would make."""

from collections import deque

import numpy as np

from mana_dist.data.degradation import BI, Degradation, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.registration import Registration, register
from mana_dist.model.inference import Frame

_EVERY, _LAST = 8, 25
"""Distance and last number of the frames that are compared: 1, 9, 17 and 25, enough for a median."""
SHIFT = 0.05
"""Smallest shift that is reported, LR pixels. Other kernels of the same phase stay below 0.025: Pillow's bicubic and
Lanczos, OpenCV's bicubic and area, JPEG of quality 20 and more, measured on five real clips."""
_FARTHEST = 2.0
"""Largest shift that a kernel may cause, LR pixels; beyond it is another part of the picture. (BD is 0.375 from BI.)"""
_ALIKE = 0.85
"""Least correlation of two pictures of the same: with other kernels or shifts above 0.98, of other frames below 0.6."""
_NOISE = 1e-4
"""Difference of two correlations that is due to noise."""


class GivenLr:
    """A running comparison of a clip's given LR frames with those that we would make of its HR frames.

    Args:
        uri: of the LR frames, for errors.
        hr_uri: of the HR frames, for errors.
        degradation: by which the LR frames should have been made.
        scale: HR side over LR side.
    """

    def __init__(self, uri: str, hr_uri: str, degradation: Degradation, scale: int = 4) -> None:
        self._uri, self._hr_uri, self._scale = uri, hr_uri, scale
        # What a recipe draws for a frame alone, noise and all, would be no measure of another's.
        self._degradation = BI if degradation.recipe is not None else degradation
        self._frames: deque[tuple[int, Frame, Frame]] = deque(maxlen=3)
        self._found: list[Registration] = []
        self._next = 0

    def add(self, number: int, hr: Frame, lr: Frame) -> None:
        """Take the next frame; frames that were taken before are ignored.

        Raises:
            UserError: the LR frames show something else, or another time.
        """
        if number < self._next or number > _LAST + 1:
            return
        self._next = number + 1
        self._frames.append((number, hr, lr))
        if len(self._frames) == 3 and self._frames[1][0] % _EVERY == 1:
            self._compare(1)

    def notes(self) -> tuple[str, ...]:
        """Return the notes for the report, once all frames were taken.

        Raises:
            UserError: as :meth:`add`.
        """
        if not self._found and self._frames:
            self._compare(0)  # a clip of one frame or two
        if not self._found:
            return ()
        right, down = (float(np.median([found[axis] for found in self._found])) for axis in (0, 1))
        if max(abs(right), abs(down)) < SHIFT:
            return ()
        where = [
            f"{abs(shift):.2f} LR pixels {'further ' + ahead if shift > 0 else 'further ' + back}"
            for shift, ahead, back in ((right, "right", "left"), (down, "down", "up"))
            if abs(shift) >= SHIFT
        ]
        return (
            f"the given LR frames lie {' and '.join(where)} than our {self._degradation}'s; --lr made has no shift",
        )

    def _compare(self, position: int) -> None:
        number, hr, lr = self._frames[position]
        found = self._register(hr, lr)
        if found is None:
            return
        if found.correlation < _ALIKE or max(abs(found.right), abs(found.down)) > _FARTHEST:
            raise UserError(
                f"{self._uri}: LR frame {number} does not show what frame {number} of {self._hr_uri} shows "
                f"(correlation {found.correlation:.2f}, {found.right:.1f} pixels right and {found.down:.1f} down); "
                "mend the dataset or use --lr made"
            )
        for other, neighbour, _ in self._frames:
            near = self._register(neighbour, lr) if other != number else None
            # Both correlations contain the difference of the kernels.
            if near is not None and 1 - found.correlation > max(_NOISE, 2 * (1 - near.correlation)):
                raise UserError(
                    f"{self._uri}: LR frame {number} shows frame {other} of {self._hr_uri}, not {number}; "
                    "mend the dataset or use --lr made"
                )
        self._found.append(found)

    def _register(self, hr: Frame, lr: Frame) -> Registration | None:
        return register(degrade(hr, self._degradation, self._scale), lr)
