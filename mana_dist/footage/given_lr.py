"""The comparison of LR frames that are given with a clip with those that we would make."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation import BI, Degradation, degrade
from mana_dist.footage.pairs import MismatchError
from mana_dist.footage.registration import Registration, register
from mana_dist.model.inference import Frame

_EVERY, _LAST = 8, 25
"""Distance and last number of the frames whose shift is measured: 1, 9, 17 and 25, enough for a median."""
SHIFT = 0.05
"""Smallest shift that is reported, LR pixels. Other kernels of the same phase stay below 0.025: Pillow's bicubic and
Lanczos, OpenCV's bicubic and area, JPEG of quality 20 and more, measured on five real clips."""
_KERNEL = 0.6
"""Largest shift, down and right together, of a kernel with another phase, LR pixels: BD is 0.53 from BI."""
_FARTHEST = 2.0
"""Largest shift of two pictures of the same that is not refused, LR pixels."""
_ALIKE = 0.85
"""Least correlation of two pictures of the same: with other kernels or shifts above 0.98, of other frames below 0.6."""
_NOISE = 1e-4
"""Difference of two correlations that is due to noise."""
_CLEAR = 0.005
"""Difference from 1 of a correlation that compression alone does not cause in a picture that stands still."""
_CONTRAST = 8.0
"""Least standard deviation, grey levels, of a picture that noise cannot hide."""
_TONES = 4.0
"""Least difference of tones that is reported, grey levels."""
_MOST = 0.75
"""Share of the frames that must be most like others, all equally far away, where noise hides each frame's own."""
_LAG = 0.2
"""Least share of the difference from 1 of an LR frame's correlation by which another frame is more like it: strong
compression carries so much of the frames before over (up to 0.15 where something moves, 0.37 is one frame's)."""
_LEAST = 5
"""Least number of those frames."""
_WORDS = ("one frame", "two frames", "three frames")


@dataclass
class _Held:
    """A frame, with what is computed of it once."""

    number: int
    hr: Frame
    lr: Frame
    degrade: partial[Frame]

    @cached_property
    def made(self) -> Frame:
        return self.degrade(self.hr)

    @cached_property
    def made_small(self) -> NDArray[np.float32]:
        return _small(self.made)

    @cached_property
    def lr_small(self) -> NDArray[np.float32]:
        return _small(self.lr)


class GivenLr:
    """A running comparison of a clip's given LR frames with those that we would make of its HR frames.

    Some frames are registered to a fraction of a pixel. With ``every_frame`` all others are compared too, by their
    correlation, and registered only where another frame is more like them, or their own unlike.

    Args:
        uri: of the LR frames, for errors.
        hr_uri: of the HR frames, for errors.
        degradation: by which the LR frames should have been made.
        scale: HR side over LR side.
        every_frame: whether to compare every frame, with three frames on either side, or those few with one.
        mend: ends each error.
    """

    def __init__(
        self,
        uri: str,
        hr_uri: str,
        degradation: Degradation,
        scale: int = 4,
        *,
        every_frame: bool = False,
        mend: str = "mend the dataset or use --lr made",
    ) -> None:
        self._uri, self._hr_uri, self._mend = uri, hr_uri, mend
        # What a recipe draws for a frame alone, noise and all, would be no measure of another's.
        self._degradation = BI if degradation.recipe is not None else degradation
        self._degrade = partial(degrade, degradation=self._degradation, scale=scale)
        self._every_frame, self._reach = every_frame, len(_WORDS) if every_frame else 1
        self._frames: deque[_Held] = deque(maxlen=2 * self._reach + 1)
        self._found: list[Registration] = []
        self._tones: list[NDArray[np.float64]] = []
        self._first: int | None = None
        self._offsets: list[tuple[int, int]] = []  # of the frames most like LR frames, with those frames' numbers
        # The first frame unlike its own: those after it may show that what it shows lies further away.
        self._unlike: tuple[int, MismatchError] | None = None
        self._suspect = 0  # offset of the frame that the last LR frame showed, if that was hard to tell
        self._next = self._compared = 0

    @property
    def made(self) -> Frame:
        """The LR frame that we would make of the frame that was taken last."""
        return self._frames[-1].made

    def add(self, number: int, hr: Frame, lr: Frame) -> None:
        """Take the next frame; frames that were taken before are ignored.

        Raises:
            MismatchError: the LR frames show something else, or another time.
        """
        self._first = number if self._first is None else self._first
        if number < self._next or (number > self._first + _LAST + 1 and not self._every_frame):
            return
        self._next = number + 1
        self._frames.append(_Held(number, hr, lr, self._degrade))
        if len(self._frames) > self._reach:
            self._compare_if_due(self._frames[-1 - self._reach])

    def notes(self) -> tuple[str, ...]:
        """Return the notes for the report, once all frames were taken.

        Raises:
            MismatchError: as :meth:`add`.
        """
        for held in list(self._frames)[-self._reach :]:
            self._compare_if_due(held)
        if not self._found and self._frames:
            self._compare(self._frames[0], measured=True)  # a clip of one frame
        if self._unlike is not None:
            raise self._unlike[1]
        right, down = (float(np.median([found[axis] for found in self._found] or [0])) for axis in (0, 1))
        if np.hypot(right, down) < 2 * SHIFT and self._every_frame:  # else what moves as a whole deceives
            self._refuse_most()
        return (*self._shift_notes(right, down), *self._tone_notes())

    def _refuse_most(self) -> None:
        counts = Counter(offset for offset, _ in self._offsets)
        for offset, times in counts.items():
            if offset and times >= max(_LEAST, _MOST * len(self._offsets)):
                number = next(number for found, number in self._offsets if found == offset)
                self._refuse_time(number, number + offset)

    def _shift_notes(self, right: float, down: float) -> list[str]:
        where = [
            f"{abs(shift):.2f} LR pixels {'further ' + ahead if shift > 0 else 'further ' + back}"
            for shift, ahead, back in ((right, "right", "left"), (down, "down", "up"))
            if abs(shift) >= SHIFT
        ]
        made = "" if self._every_frame else "; --lr made has no shift"
        return [f"the given LR frames lie {' and '.join(where)} than our {self._degradation}'s{made}"] if where else []

    def _tone_notes(self) -> list[str]:
        """Name a gamma, another range, or a shift of colours: what a pixel's value is where ours has another."""
        if not (self._tones and self._every_frame):
            return []
        ours, given = np.median(self._tones, axis=0)
        share, channel = np.unravel_index(np.abs(given - ours).argmax(), ours.shape)
        one, other = float(ours[share, channel]), float(given[share, channel])
        if abs(other - one) < _TONES:
            return []
        name = ("red", "green", "blue")[int(channel)]
        what = "brighter" if other > one else "darker"
        return [f"the given LR frames are {what} than our {self._degradation}'s: {name} {other:.0f}, not {one:.0f}"]

    def _compare_if_due(self, held: _Held) -> None:
        place = held.number - (self._first or 0)
        measured = place % _EVERY == 1 and place <= _LAST
        if held.number >= self._compared and (measured or self._every_frame):
            self._compare(held, measured=measured)

    def _compare(self, held: _Held, *, measured: bool) -> None:
        if self._unlike is not None and held.number > self._unlike[0] + self._reach:
            raise self._unlike[1]
        self._compared = held.number + 1
        nearness = {other.number: _correlation(other.made_small, held.lr_small) for other in self._frames}
        plain = nearness[held.number]
        nearest = max(nearness, key=nearness.__getitem__)
        is_clear = nearness[nearest] - plain >= _LAG * (1 - plain)
        self._offsets.append((nearest - held.number if is_clear else 0, held.number))
        has_contrast = float(held.made_small.std()) >= _CONTRAST or not self._every_frame
        rivals = [
            other
            for other in sorted(self._frames, key=lambda other: -nearness[other.number])
            if other is not held and other.lr.shape == held.lr.shape
            if nearness[other.number] > plain + _NOISE or (measured and abs(other.number - held.number) == 1)
        ]
        suspect, self._suspect = self._suspect, 0
        if not measured and not rivals and (plain >= _ALIKE or not has_contrast):
            return
        found = register(held.made, held.lr)
        if found is not None:
            self._check_time(held, found, rivals, suspect)
        elif plain >= _ALIKE or not has_contrast or not self._every_frame:
            return
        found = found or Registration(0, 0, plain)
        is_alike = found.correlation >= _ALIKE or not has_contrast
        if not is_alike or max(abs(found.right), abs(found.down)) > _FARTHEST:
            right, down = round(found.right, 1) + 0.0, round(found.down, 1) + 0.0  # so that nothing is -0.0
            self._refuse(
                held.number,
                f"LR frame {held.number} does not show what frame {held.number} of {self._hr_uri} shows "
                f"(correlation {found.correlation:.2f}, {right} pixels right and {down} down)",
                at_once=not self._every_frame,
            )
        elif measured:
            self._found.append(found)
            self._tones.append(np.stack([_tones(held.made), _tones(held.lr)]))

    def _check_time(self, held: _Held, found: Registration, rivals: Sequence[_Held], suspect: int) -> None:
        """Refuse an LR frame that shows one of ``rivals`` rather than its own, with which it was registered."""
        for other in rivals:
            near = register(other.made, held.lr)
            if near is None or not _is_nearer(near, found):
                continue
            self._suspect = other.number - held.number
            is_outermost = other is self._frames[0] or other is self._frames[-1]
            at_once = not self._every_frame or not is_outermost or abs(self._suspect) == self._reach
            if not self._every_frame or 1 - found.correlation > _CLEAR or suspect == self._suspect:
                self._refuse_time(held.number, other.number, at_once=at_once)
            return

    def _refuse_time(self, number: int, shown: int, *, at_once: bool = True) -> None:
        offset = abs(shown - number)
        length = _WORDS[offset - 1] if offset <= len(_WORDS) else f"{offset} frames"
        which = f"LR frame {number} shows frame {shown} of {self._hr_uri}, not {number}"
        self._refuse(number, f"LR is {length} {'late' if shown < number else 'early'}: {which}", at_once=at_once)

    def _refuse(self, number: int, reason: str, *, at_once: bool) -> None:
        """Raise, at once or if the frames after this one do not show that it is another frame's."""
        error = MismatchError(f"{self._uri}: {reason}; {self._mend}")
        if at_once:
            raise error
        self._unlike = self._unlike or (number, error)


def _is_nearer(near: Registration, found: Registration) -> bool:
    """Return whether another frame than its own is what an LR frame shows; each was registered with it."""
    if near.correlation < _ALIKE:
        return False
    # Both correlations contain the difference of the kernels. A picture that moves as a whole only seems shifted.
    is_more_alike = 1 - found.correlation > max(_NOISE, 2 * (1 - near.correlation))
    return is_more_alike or (_length(found) > _KERNEL and _length(near) < SHIFT)


def _length(found: Registration) -> float:
    return float(np.hypot(found.right, found.down))


def _small(picture: Frame) -> NDArray[np.float32]:
    """Return luma at half the size, which has less noise, around its mean."""
    height, width = (max(1, side // 2) for side in picture.shape[:2])
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small - small.mean()


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    if one.shape != other.shape:  # the clip's size changes here
        return 0.0
    return float((one * other).sum() / max(1e-9, np.linalg.norm(one) * np.linalg.norm(other)))


def _tones(picture: Frame) -> NDArray[np.float64]:
    """Return for each channel the means of the darkest, the middle and the brightest third of the pixels."""
    height, width = (max(3, side // 16) for side in picture.shape[:2])  # blur and noise change no mean of so many
    small = np.sort(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3), axis=0)
    return np.stack([third.mean(0) for third in np.array_split(small, 3)])
