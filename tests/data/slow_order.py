"""The sample order, written again: slowly, in Python's integers and lists, from its description alone."""

from itertools import accumulate

MASK = 2**32 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10, round by round as Random123's documentation writes it."""
    for number in range(10):
        if number:
            key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
        high0, low0 = divmod(0xD2511F53 * counter[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
    return counter


def draw(seed: int, stream: int, number: int, part: int, index: int) -> list[int]:
    """Four random words of a stream."""
    return philox([index, part, number % 2**32, number // 2**32 + stream * 2**24], [seed % 2**32, seed // 2**32])


def shuffled(seed: int, stream: int, number: int, part: int, size: int) -> list[int]:
    words = {index: draw(seed, stream, number, part, index) for index in range(size)}
    return sorted(range(size), key=lambda index: (words[index][0] + words[index][1] * 2**32, index))


def epoch(rows: list[int], batch_size: int, shuffle_groups: int, seed: int, number: int) -> list[tuple[int, int]]:
    """The samples of an epoch as (row group, row), in the order in which slots take them."""
    groups = shuffled(seed, 1, number, 0, len(rows))
    sequence = []
    for window, first in enumerate(range(0, len(rows), shuffle_groups)):
        members = [(group, row) for group in groups[first : first + shuffle_groups] for row in range(rows[group])]
        sequence += [members[place] for place in shuffled(seed, 2, number, window, len(members))]
    sizes = [len(sequence) // batch_size + (lane < len(sequence) % batch_size) for lane in range(batch_size)]
    ends = list(accumulate(sizes))
    lanes = [sequence[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return [lane[depth] for depth in range(max(sizes)) for lane in lanes if depth < len(lane)]


def augmentation(seed: int, number: int, height: int, width: int, crop: int) -> tuple[int, int, bool, bool, bool]:
    """Top, left, vertical and horizontal flip, transpose."""
    words = draw(seed, 3, number, 0, 0)
    top, left = words[0] * (height - crop + 1) // 2**32, words[1] * (width - crop + 1) // 2**32
    return top, left, words[2] % 2 == 1, words[2] // 2 % 2 == 1, words[2] // 4 % 2 == 1


def is_reversed(seed: int, number: int) -> bool:
    """The lowest bit of a stream of its own."""
    return draw(seed, 4, number, 0, 0)[0] % 2 == 1
