"""Random numbers of a recipe as a pure function of its seed, the clip, the operation and the frame's number."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.philox import philox

Range = tuple[float, float]
"""The least and the greatest value of a parameter; in YAML two numbers, or one for both."""

T = TypeVar("T")


@dataclass(frozen=True)
class Draws:
    """The random numbers of one operation in one clip; each has a name, and none depends on what was drawn before.

    Attributes:
        key: of the generator (see :func:`key_of`).
        operation: place of the operation in its recipe.
        drift: frames between two values of a parameter that changes over the frames; 0: it does not.
    """

    key: tuple[int, int]
    operation: int
    drift: int = 0

    def once(self, name: str, knot: int = 0) -> float:
        """Return a number of [0, 1) for the whole clip, or for one ``knot`` of it."""
        high, low, *_ = philox((knot, self.operation, _word(name), 0), self.key)
        return ((high >> 5) * 2**26 + (low >> 6)) / 2**53

    def choice(self, name: str, options: Sequence[T]) -> T:
        """Return one of ``options``, all as likely, for the whole clip."""
        return options[int(self.once(name) * len(options))]

    def value(self, name: str, between: Range, number: int) -> float:
        """Return a parameter's value at frame ``number``.

        With :attr:`drift` it goes from one value to the next every so many frames, slow at both and without a jump.
        """
        low, high = between
        if not self.drift:
            return low + self.once(name) * (high - low)
        knot, frames = divmod(number, self.drift)
        place = frames / self.drift
        weight = place * place * (3 - 2 * place)
        return low + ((1 - weight) * self.once(name, knot) + weight * self.once(name, knot + 1)) * (high - low)

    def normals(self, number: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return normally distributed numbers of mean 0 and variance 1 for frame ``number``."""
        count = int(np.prod(shape))
        blocks = np.arange(-(-count // 8), dtype=np.uint64)  # of four words, each two numbers
        operation, frame = (np.full_like(blocks, word) for word in (self.operation, number))
        words = philox((blocks, operation, np.zeros_like(blocks), frame), self.key)
        halves = np.stack(words, axis=1).astype("<u4").view("<u2").ravel()[:count]
        return _quantiles()[halves].reshape(shape)


def key_of(seed: int, clip: str) -> tuple[int, int]:
    """Return the generator's key for a recipe's seed and a clip's name."""
    digest = hashlib.blake2b(f"{seed}\n{clip}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _word(name: str) -> int:
    return zlib.crc32(name.encode())


@lru_cache(maxsize=1)
def _quantiles() -> NDArray[np.float32]:
    """Return 65536 equally likely values of a normal distribution, ascending, of variance 1."""
    from scipy.special import ndtri

    values = ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    return (values / values.std()).astype(np.float32)
