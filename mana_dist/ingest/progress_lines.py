"""The ingest's progress, in lines for people."""

import time
from collections.abc import Collection, Sequence

from mana_dist.console import log
from mana_dist.data.config import SampleSettings
from mana_dist.ingest import units
from mana_dist.ingest.units import ClipResult, Unit, UnitResult
from mana_dist.progress import count, duration

_EVERY_LINE = 20  # units up to which each gets a line
_SECONDS = 5.0  # between lines of a longer job


class UnitLines:
    """Progress with rate and time left, a line for each unit, of long jobs one every few seconds.

    Args:
        planned: all units of the run.
        settings: how samples are made.
        clips: clips to do.
        done: names of the units that an earlier run has done.
        there: clips that the dataset holds already.
    """

    def __init__(
        self, planned: Sequence[Unit], settings: SampleSettings, *, clips: int, done: Collection[str], there: int
    ) -> None:
        again = f" ({there} more are there already)" if there else ""
        taken = f"; {len(done)} of {len(planned)} tasks were done before it was stopped" if done else ""
        made = f"{settings.frames_per_sample}-frame samples every {count(settings.stride, 'frame')}"
        log.info(f"ingest: {count(clips, 'clip')}{again}, {settings.degradation}, {made}{taken}")
        self._work = {unit.name: units.work(unit) for unit in planned}
        self._names = {clip.source: clip.name for unit in planned for clip in unit.clips}
        self._total, self._number = len(planned), len(done)
        self._left = sum(work for name, work in self._work.items() if name not in done)
        self._done_work = 0
        self._frames = self._samples = 0
        self._all_work = max(sum(self._work.values()), 1)
        self._begun = self._printed = time.monotonic()

    def add(self, result: UnitResult) -> None:
        """A unit is done."""
        if result.name not in self._work:
            self._total += 1  # a clip of a unit whose process died: they are tried one by one
        self._number += 1
        self._done_work += self._work.get(result.name, 0)
        self._frames += sum(clip.frames for clip in result.clips)
        self._samples += sum(shard.rows for shard in result.shards)
        now = time.monotonic()
        noted = any(clip.note or clip.reason for clip in result.clips)
        if self._total <= _EVERY_LINE or noted or now - self._printed > _SECONDS or self._number == self._total:
            log.info(f"[{self._number}/{self._total}] {self._news(result)}; {self._rate(now)}")
            self._printed = now

    @property
    def done_ratio(self) -> float:
        """Share of the work that is done, with what earlier runs did."""
        return 1 - (self._left - self._done_work) / self._all_work

    def _rate(self, now: float) -> str:
        elapsed = max(now - self._begun, 1e-9)
        left = elapsed * (self._left - self._done_work) / max(self._done_work, 1)
        rate = f"{self._samples} samples so far, {self._frames / elapsed:.1f} frames/s"
        return f"{rate}, {duration(left)} left" if self._number < self._total else rate

    def _news(self, result: UnitResult) -> str:
        if len(result.clips) == 1:
            return self._clip_news(result.clips[0], part=result.name != result.group)
        samples = count(sum(clip.samples for clip in result.clips), "sample")
        refused = sum(bool(clip.reason) for clip in result.clips)
        return f"{len(result.clips)} clips: {samples}" + (f", {refused} rejected" if refused else "")

    def _clip_news(self, clip: ClipResult, *, part: bool) -> str:
        name = self._names.get(clip.uri, clip.uri)
        if clip.reason and not part:  # a part without samples, a still title say, refuses no film
            return f"{name}: rejected"
        return f"{name}: {count(clip.samples, 'sample')}" + (f" ({clip.note})" if clip.note else "")
