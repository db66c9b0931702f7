"""Reading ahead and writing behind change neither the order, nor the bytes, nor where an error shows."""

import threading
from collections import deque
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.upscale import CalledAtOnce, in_turn
from mana_dist.upscale import upscale_segments as module
from mana_dist.upscale.config import Settings
from mana_dist.upscale.overlap import WriteBehind, read_ahead
from mana_dist.upscale.source_video import segments_of, survey
from tests.upscale.runs import LONG, SAME, VARIABLE, synthesise


def numbers(count: int, read: list[int]) -> Generator[int]:
    for number in range(count):
        read.append(threading.get_ident())
        yield number
    raise OSError("the disk")


def test_items_come_in_order_from_another_thread_and_then_the_error() -> None:
    read: list[int] = []
    got: list[int] = []

    def check(number: int) -> None:
        got.append(number)
        assert len(read) <= number + 1 + 3

    ahead = read_ahead(numbers(20, read), 3)
    with pytest.raises(OSError, match="the disk"):
        deque(map(check, ahead), maxlen=0)
    assert got == list(range(20))
    assert len(set(read)) == 1
    assert threading.get_ident() not in read


def test_nothing_reads_on_once_the_reader_is_closed() -> None:
    read: list[int] = []
    source = numbers(1000, read)
    with closing(read_ahead(source, 3)) as ahead:
        assert next(ahead) == 0
    source.close()  # fails where a thread is still in it
    assert len(read) <= 1 + 3


def test_calls_are_made_in_order_and_none_after_one_that_failed() -> None:
    made: list[int] = []

    def call(number: int) -> None:
        made.append(number)
        if number == 5:
            raise OSError("no space left")

    with WriteBehind(call, 2) as behind, pytest.raises(OSError, match="no space left"):
        deque(map(behind, range(20)), maxlen=0)
    assert made == list(range(6))


def test_an_error_of_the_last_call_is_raised_while_waiting() -> None:
    def call() -> None:
        raise OSError("no space left")

    with WriteBehind(call, 2) as behind:
        behind()
        with pytest.raises(OSError, match="no space left"):
            behind.wait()


def test_all_calls_are_made_when_the_context_is_left() -> None:
    gate = threading.Event()
    made: list[int] = []

    def call(number: int) -> None:
        gate.wait()
        made.append(number)

    with WriteBehind(call, 4) as behind:
        for number in range(4):
            behind(number)
        gate.set()
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["constant", "variable", "damaged", "truncated"])
def test_files_are_those_of_one_step_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = synthesise(
        tmp_path / ("a.mkv" if kind == "truncated" else "a.mp4"), VARIABLE if kind == "variable" else LONG, keyframes=8
    )
    content = bytearray(source.read_bytes())
    if kind == "damaged":
        content[len(content) // 3 : len(content) // 3 + 200] = np.random.default_rng(0).bytes(200)
    source.write_bytes(content[: len(content) * 2 // 3] if kind == "truncated" else content)
    settings = Settings(segment=8, preset="ultrafast")
    surveyed = survey(str(source))
    segments = segments_of(surveyed, SAME.frames, settings.segment)

    def files(folder: Path) -> dict[str, bytes]:
        module.upscale_segments(surveyed, segments, SAME, settings, str(folder))
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    overlapped = files(tmp_path / "overlapped")
    monkeypatch.setattr(module, "read_ahead", in_turn)
    monkeypatch.setattr(module, "WriteBehind", CalledAtOnce)
    assert overlapped == files(tmp_path / "serial")
    assert overlapped
