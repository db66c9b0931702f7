"""What the ingest tells while it runs."""

import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.footage.expand import Clip
from mana_dist.ingest import units
from mana_dist.ingest.progress_lines import UnitLines
from mana_dist.ingest.units import ClipResult, Unit, UnitResult
from mana_dist.video.strict import Segment

SETTINGS = SampleSettings()


def clip(name: str, size: int = units.PACK_BYTES) -> Clip:
    return Clip(uri=f"/v/{name}.mp4", files=None, bytes=size, modified=1.0, name=name)


def result(unit: Unit, samples: int, reason: str = "") -> UnitResult:
    (one,) = unit.clips
    return UnitResult(unit.name, unit.group, clips=(ClipResult(one.uri, 10, samples, reason=reason),))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("mana_dist.ingest.progress_lines.time.monotonic", lambda: now[0])
    return now


def test_time_left_counts_only_what_is_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Eight of ten equal units were done before: after the ninth, which took a minute, a minute is left."""
    planned = [units.whole([clip(str(number))], SETTINGS) for number in range(10)]
    lines = UnitLines(planned, SETTINGS, clips=10, done={unit.name for unit in planned[:8]}, there=0)
    clock[0] = 60.0
    lines.add(result(planned[8], 3))
    assert lines.done_ratio == pytest.approx(0.9)
    told = capsys.readouterr().out
    assert "8 of 10 tasks were done before it was stopped" in told
    assert "[9/10] 8: 3 samples; " in told
    assert "1:00 left" in told


def test_a_part_without_samples_does_not_refuse_its_film(capsys: pytest.CaptureFixture[str]) -> None:
    parts = units.split(clip("film"), [Segment(None, 0, 106), Segment(5000, 100, None)], SETTINGS)
    single = units.whole([clip("title")], SETTINGS)
    lines = UnitLines([*parts, single], SETTINGS, clips=2, done=(), there=0)
    lines.add(result(parts[0], 0, "no sample in its 100 frames"))
    lines.add(result(single, 0, "no sample in its 10 frames"))
    told = capsys.readouterr().out
    assert "[1/3] film: 0 samples; " in told
    assert "[2/3] title: rejected; " in told
