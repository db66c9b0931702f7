"""A degradation as data: operations with ranges, from which each clip draws its own."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mana_dist.data.degradation.draws import Draws, key_of
from mana_dist.data.degradation.operations import Blur, Drawn, Frame, Jpeg, Noise, Operation, Resize, Target
from mana_dist.data.degradation.video_compression import VideoCompression, missing_part

OPERATIONS: Mapping[str, type[Operation]] = {
    "blur": Blur,
    "resize": Resize,
    "noise": Noise,
    "jpeg": Jpeg,
    "video": VideoCompression,
}
"""The operations by their names in YAML."""
OPERATIONS_VERSION = 1
"""Version of all operations and draws: raised whenever one of them gives other pixels."""

_NAMES = {kind: name for name, kind in OPERATIONS.items()}
_LONGEST_SEGMENT = 250
_MOST = 16


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A degradation whose LR frames are a pure function of its values, the clip's name and the frame's number.

    Frames that are compressed as video depend on the others of their segment too: on the frames that follow each
    other without a gap and whose numbers, divided by ``segment`` without rest, are the same.

    Attributes:
        name: for manifests and reports.
        version: its author's, raised whenever its values change.
        seed: of all draws.
        segment: frames between two keyframes of compressed video.
        operations: in their order; the last resize must give the size of the LR frames.
        operations_version: that of mana_dist's operations that the recipe was written for.
    """

    name: str
    version: int = 1
    seed: int = 0
    segment: int = 32
    operations: tuple[Operation, ...]
    operations_version: int = OPERATIONS_VERSION

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", self.name):
            raise ValueError(f"name: may hold letters, digits, '.', '_' and '-', at most 60, got {self.name!r}")
        for key, least, most in (("version", 1, 10**9), ("seed", 0, 2**63), ("segment", 1, _LONGEST_SEGMENT)):
            if not least <= getattr(self, key) <= most:
                raise ValueError(f"{key}: must be from {least} to {most}, got {getattr(self, key)}")
        if self.operations_version != OPERATIONS_VERSION:
            raise ValueError(
                f"operations_version: written for version {self.operations_version} of the operations, this mana_dist "
                f"has {OPERATIONS_VERSION}"
            )
        if len(self.operations) > _MOST:
            raise ValueError(f"operations: {len(self.operations)} of them; {_MOST} are the most")
        resizes = [operation for operation in self.operations if isinstance(operation, Resize)]
        if not (resizes and resizes[-1].ends):
            raise ValueError("operations: the last resize must have scale 1 and chance 1: LR frames have one size")

    @property
    def block(self) -> int:
        """The number of frames that are degraded together: those of a segment, or each for itself."""
        return self.segment if any(isinstance(operation, VideoCompression) for operation in self.operations) else 1

    def check_codecs(self) -> None:
        """Raise ValueError if PyAV was built without a codec that is named; it is one line that begins with the key."""
        for place, operation in enumerate(self.operations):
            for name in operation.codecs if isinstance(operation, VideoCompression) else ():
                if part := missing_part(name):
                    raise ValueError(f"operations[{place}].codecs: {name} needs {part}, which this PyAV lacks")

    def run(self, frames: Iterator[tuple[int, Frame]], clip: str, scale: int) -> Iterator[Frame]:
        """Yield the LR frames of HR frames of one segment that follow each other; lazily, some frames behind.

        Args:
            frames: (number, uint8 (H, W, 3) RGB), all of one size, the sides multiples of ``scale``.
            clip: the clip's name, the same whoever reads it.
            scale: HR side over LR side.
        """
        first = next(frames, None)
        if first is None:
            return
        height, width = first[1].shape[:2]
        target = Target(height // scale, width // scale, self.segment)
        running: Iterator[tuple[int, Frame]] = itertools.chain([first], frames)
        for operation, draws in self._used(clip):
            running = operation.run(running, draws, target)
        for _, picture in running:
            yield picture

    def drawn(self, clip: str, number: int) -> list[tuple[str, Drawn]]:
        """Return the names and the parameters of the operations that frame ``number`` of ``clip`` goes through."""
        begin = number // self.segment * self.segment
        return [
            (_NAMES[type(operation)], operation.drawn(draws, begin if _is_coded(operation) else number))
            for operation, draws in self._used(clip)
        ]

    def described(self, clip: str, number: int) -> str:
        """Return :meth:`drawn` as a line for people."""
        steps = []
        for name, drawn in self.drawn(clip, number):
            values = (value if isinstance(value, str) else f"{value:.3g}" for value in drawn.values())
            steps.append(" ".join([name, *values]))
        return ", ".join(steps)

    def to_mapping(self) -> dict[str, Any]:
        """Return the whole recipe as plain values, which :mod:`mana_dist.data.degradation.recipe_file` reads."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"operations": [_plain(operation) for operation in self.operations]}

    def _used(self, clip: str) -> Iterator[tuple[Operation, Draws]]:
        key = key_of(self.seed, clip)
        for place, operation in enumerate(self.operations):
            draws = Draws(key, place, operation.drift)
            if draws.once("chance") < operation.chance:
                yield operation, draws


def _is_coded(operation: Operation) -> bool:
    return isinstance(operation, VideoCompression)


def _plain(operation: Operation) -> dict[str, Any]:
    values: dict[str, Any] = {"op": _NAMES[type(operation)]}
    for name, value in dataclasses.asdict(operation).items():
        if isinstance(value, dict):
            values[name] = {key: list(between) for key, between in value.items()}
        else:
            values[name] = list(value) if isinstance(value, tuple) else value
    return values
