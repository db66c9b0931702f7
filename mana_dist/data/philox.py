"""Philox4x32-10, a counter-based generator: random words as a pure function of a key and a counter.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). NumPy and Python may change the
streams of their own generators between versions (NEP 19); these words are integer arithmetic, the same for good.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

WORD = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Words = TypeVar("Words", int, NDArray[np.uint64])


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Return four random words of 32 bits for a counter: Python's integers, or arrays of uint64 of one shape."""
    words: tuple[Any, ...] = counter  # NumPy's types for these operations are wider than what they give
    a, b, c, d = words
    for step in range(_ROUNDS):
        # 32 x 32 bits fit 64, so arrays of uint64 lose nothing.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        key0, key1 = ((word + step * more) & WORD for word, more in zip(key, _KEY_STEPS, strict=True))
        a, b, c, d = (second >> 32) ^ b ^ key0, second & WORD, (first >> 32) ^ d ^ key1, first & WORD
    return a, b, c, d
