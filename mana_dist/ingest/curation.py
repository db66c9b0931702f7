"""Clips that are left out as a whole, once all were looked at: near-duplicates, and those of poor quality."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.config import SampleSettings
from mana_dist.footage.expand import Clip
from mana_dist.ingest import units
from mana_dist.ingest.sources_table import SourceRow
from mana_dist.ingest.units import ClipResult, Unit, UnitResult, by_clip

_BITS = 6
"""Most bits of 64 by which the hashes of two copies of a frame differ; of other frames it is 16 and more, mostly 32."""
_SHARE = 0.8
"""Least share of a clip's frames that are in another one of which it is a near-duplicate."""
_AT_ONCE = 2**22  # comparisons, of 16 bytes each
_DIGITS = 16

_Hashes = NDArray[np.uint64]


def refusals(
    results: Iterable[UnitResult], order: Sequence[str], there: Iterable[SourceRow], settings: SampleSettings
) -> dict[str, str]:
    """Return why clips are left out, by their sources; it depends on neither who did the work nor when.

    Args:
        results: of all units.
        order: the sources' order: of near-duplicates the earlier stays.
        there: clips that stay in any case.
        settings: what is asked for.
    """
    worked = {uri: total for uri, (_, total) in by_clip(results).items()}
    clips = {uri: total for uri, total in worked.items() if total.samples}
    found: dict[str, str] = {}
    for uri, total in clips.items():
        for name, most in (("blockiness", settings.max_blockiness), ("blur", settings.max_blur)):
            value = total.mean(name)
            if most is not None and value is not None and value > most:
                found[uri] = f"its {name} of {value:.2f} is above --max-{name} {most:g}"
    if settings.drop_near_duplicates:
        rank = {uri: place for place, uri in enumerate(order)}
        ordered = sorted(clips.keys() - found.keys(), key=lambda uri: (rank.get(uri, -1), uri))
        kept = [(row.uri, _numbers(row.hashes)) for row in there if row.samples and row.uri not in worked]
        for uri, other in _near_duplicates([(uri, _numbers(clips[uri].hashes)) for uri in ordered], kept):
            found[uri] = f"shows what {other} shows: a near-duplicate"
    return found


def _near_duplicates(
    clips: Iterable[tuple[str, _Hashes]], kept: Iterable[tuple[str, _Hashes]]
) -> Iterable[tuple[str, str]]:
    """Yield each clip that is a near-duplicate of one that stays, with that one."""
    names = [name for name, hashes in kept if len(hashes)]
    parts = [hashes for _, hashes in kept if len(hashes)]
    known = np.concatenate([np.empty(0, np.uint64), *parts])
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    for name, hashes in clips:
        if not len(hashes):
            continue
        if names:
            shares = _found_in(hashes, known[: ends[-1]], ends) / len(hashes)
            if shares.max() >= _SHARE:
                yield name, names[int(shares.argmax())]
                continue
        names.append(name)
        end = (ends[-1] if len(ends) else 0) + len(hashes)
        if end > len(known):
            known = np.concatenate([known, np.empty(max(len(hashes), len(known)), np.uint64)])
        known[end - len(hashes) : end] = hashes
        ends = np.append(ends, end)


def _found_in(hashes: _Hashes, known: _Hashes, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of ``hashes`` are in each of the clips whose hashes end at ``ends`` among those known."""
    begins = np.concatenate([[0], ends[:-1]])
    counts = np.zeros(len(ends), np.int64)
    step = max(1, _AT_ONCE // len(known))
    for first in range(0, len(hashes), step):
        alike = np.bitwise_count(hashes[first : first + step, None] ^ known[None]) <= _BITS
        counts += np.logical_or.reduceat(alike, begins, axis=1).sum(0)
    return counts


def _numbers(hashes: str | None) -> _Hashes:
    text = hashes or ""
    return np.array([int(text[at : at + _DIGITS], 16) for at in range(0, len(text), _DIGITS)], np.uint64)


def without(
    results: Sequence[UnitResult], refused: Mapping[str, str], clips: Collection[Clip], settings: SampleSettings
) -> tuple[list[UnitResult], list[Unit]]:
    """Return the results without refused clips, and units to run for those that shared shards with them."""
    given = {clip.source: clip for clip in clips}
    kept, again = [], []
    for result in results:
        left = [given[clip.uri] for clip in result.clips if clip.uri not in refused]
        if result.failure or len(left) == len(result.clips):
            kept.append(result)
        elif left:
            again.append(units.whole(left, settings))
    for uri, (group, total) in by_clip(results).items():
        if uri in refused:
            gone: ClipResult = replace(total, samples=0, reason=refused[uri])
            kept.append(UnitResult(f"{group}-{len(kept)}", group, clips=(gone,)))
    return kept, again
