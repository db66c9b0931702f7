"""The progress line on a terminal and in a log."""

import io

import pytest

from mana_dist.progress import LiveLine, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_log_gets_a_line_every_five_seconds_with_rate_and_time_left(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = LiveLine("clip", 100, stream)
    for _ in range(20):
        clock[0] += 0.5
        progress.step()
    progress.close()
    assert stream.getvalue().splitlines() == [
        "clip: frame 10/100, 2.00 frames/s, ETA 0:45",
        "clip: frame 20/100, 2.00 frames/s, ETA 0:40",
    ]
    assert (progress.count, progress.seconds, progress.rate) == (20, 10.0, 2.0)


def test_several_frames_at_once_count_as_many(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = LiveLine("3 clips", 100, stream)
    for frames in (10, 0, 15):
        clock[0] += 5
        progress.step(frames)
    assert stream.getvalue().splitlines() == [
        "3 clips: frame 10/100, 2.00 frames/s, ETA 0:45",
        "3 clips: frame 10/100, 1.00 frames/s, ETA 1:30",
        "3 clips: frame 25/100, 1.67 frames/s, ETA 0:45",
    ]


def test_terminal_line_is_overwritten_and_cleared(clock: list[float]) -> None:
    stream = Terminal()
    progress = LiveLine("clip", 20_000, stream)
    clock[0] += 1
    progress.step()
    progress.close()
    assert stream.getvalue().startswith("\rclip: frame 1/20000, 1.00 frames/s, ETA 5:33:19")
    assert stream.getvalue().endswith(" \r")
    assert "\n" not in stream.getvalue()


def test_without_a_total_there_is_no_guess(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = LiveLine("clip", None, stream)
    clock[0] += 10
    progress.step()
    assert stream.getvalue() == "clip: frame 1, 0.10 frames/s\n"


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.6, 3599, 3600, 86_399)] == ["0:00", "1:00", "59:59", "1:00:00", "23:59:59"]
