"""What the sweep's process notes of trials that could not, and how it ends them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mana_dist.sweep import trial_outcomes, watch
from mana_dist.sweep.board import Board
from mana_dist.sweep.trial_messages import Report
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import make_plan
from mana_dist.sweep.variations import memory_sweep
from mana_dist.sweep.watch import Watch
from mana_dist.train.elastic.interrupts import Interrupts
from tests.sweep.outcomes import CONFIG, finished

PLAN = make_plan(CONFIG, memory_sweep(CONFIG, (0, 4)), samples=1)
NONE, FOUR = "none-seed5", "4-seed5"


def watch_of(folder: Path, interrupts: Interrupts) -> Watch:
    return Watch(PLAN.trials, str(folder), "sqlite://", Board([NONE, FOUR], 1), interrupts)


def test_a_trial_that_noted_its_outcome_keeps_it(tmp_path: Path) -> None:
    watch = watch_of(tmp_path, Interrupts())
    trial_outcomes.write(str(tmp_path), NONE, finished(30))
    watch.ended(NONE, "")
    assert trial_outcomes.read(str(tmp_path), NONE) == finished(30)


def test_one_that_died_or_was_stopped_gets_its_outcome_here(tmp_path: Path) -> None:
    before = Outcome(status=Status.FAILED, reason="of the last time")
    trial_outcomes.write(str(tmp_path), NONE, before)
    watch = watch_of(tmp_path, Interrupts())
    watch.ended(NONE, "")
    watch.ended(FOUR, "killed by the kernel")
    assert trial_outcomes.read(str(tmp_path), NONE) == Outcome(status=Status.STOPPED, reason="early, by ASHA")
    assert trial_outcomes.read(str(tmp_path), FOUR) == Outcome(status=Status.FAILED, reason="killed by the kernel")


def test_an_interrupt_ends_the_trials_and_waits_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GRACE", 60.0)
    saves = "import signal, sys, time; signal.signal(15, lambda *_: (open('saved', 'w').close(), sys.exit(143))); "
    program = [sys.executable, "-c", f"{saves}print('ready', flush=True); time.sleep(99)"]
    with Interrupts() as interrupts, subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        its = watch_of(tmp_path, interrupts)
        its.reported(NONE, Report(what="starting", process=process.pid))
        its.turn()
        with interrupts.awaited():
            signal.raise_signal(signal.SIGTERM)
            begun = time.monotonic()
            with pytest.raises(SystemExit) as ended:
                its.turn()
        assert (tmp_path / "saved").exists()
        assert time.monotonic() - begun < 50  # it is a zombie now, for which nobody need wait
    assert ended.value.code == 143
    assert "SIGTERM: 1 trial(s) save a checkpoint" in capsys.readouterr().out
