"""The live table and its ETA."""

import io

from mana_dist.sweep.board import Board, Line, remaining, table
from mana_dist.sweep.trial_messages import Report


def running(eta: float, begun: float = 0.0) -> Line:
    return Line("r", Report(what="training", step=5, total=10, stage=1, loss=0.5, eta_seconds=eta), None, begun)


def over(seconds: float) -> Line:
    return Line("o", Report(what="finished", step=10, total=10), None, 0.0, seconds)


def test_what_waits_takes_as_long_as_the_others() -> None:
    assert remaining([over(100.0), running(30.0, begun=50.0), Line("w")], 1, now=120.0) == 30 + 100
    assert remaining([over(100.0), running(30.0, begun=50.0), Line("w")], 2, now=120.0) == 65
    assert remaining([over(100.0), running(90.0, begun=110.0)], 2, now=120.0) == 90
    assert remaining([Line("w")], 1, now=0.0) is None
    begun = Line("b", Report(what="starting", total=10), None, 110.0)
    assert remaining([over(100.0), begun], 1, now=120.0) == 100
    assert remaining([over(5.0)], 1, now=9.0) == 0


def test_the_table_as_it_is_shown() -> None:
    assert table([over(1.0), running(61.0), Line("w")], 125.0) == [
        "trial            stage  step   loss     val PSNR  ETA",
        "o      finished         10/10",
        "r      training  1      5/10   0.50000            1:01",
        "w      waiting",
        "ETA of all: 2:05",
    ]


def test_a_report_without_a_psnr_keeps_the_last_one_and_a_log_gets_tables_now_and_then() -> None:
    clock = [0.0]
    stream = io.StringIO()
    board = Board(["a"], 1, stream, lambda: clock[0])
    board.report("a", Report(what="training", step=1, total=4, psnr=30.0))
    board.report("a", Report(what="training", step=2, total=4, loss=0.1))
    board.refresh()
    clock[0] = 29.0
    board.refresh()
    assert stream.getvalue().count("ETA of all") == 1
    assert "2/4   0.10000  30.00" in stream.getvalue()
    board.report("a", Report(what="training", step=3, total=4))
    clock[0] = 599.0
    board.refresh()
    assert stream.getvalue().count("ETA of all") == 1  # it is still at the same, which a log need not hear often
    clock[0] = 600.0
    board.refresh()
    assert stream.getvalue().count("ETA of all") == 2
    board.report("a", Report(what="evaluating", step=4, total=4))
    clock[0] = 630.0
    board.refresh()
    assert stream.getvalue().count("ETA of all") == 3
    board.ended("a")
    board.refresh(now=True)
    assert stream.getvalue().count("ETA of all") == 4
