"""Philox4x32-10 against its authors' own vectors, and arrays against single numbers."""

import numpy as np
import pytest

from mana_dist.data.philox import philox
from tests.data import slow_order

# Random123's known-answer tests (kat_vectors): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_published_answers(counter: str, key: str, expected: str) -> None:
    a, b, c, d = words(counter)
    low, high = words(key)
    assert list(philox((a, b, c, d), (low, high))) == words(expected)
    first, second, third, fourth = (np.full(2, word, dtype=np.uint64) for word in (a, b, c, d))
    arrays = philox((first, second, third, fourth), (low, high))
    assert [word.tolist() for word in arrays] == [[word, word] for word in words(expected)]
    assert slow_order.philox([a, b, c, d], [low, high]) == words(expected)  # the oracle of test_order
