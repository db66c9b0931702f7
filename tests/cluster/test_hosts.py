"""A training over real hosts: one dies, one is cut off, they come back."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts, unavailable
from tests.train.trainings import DATA, TINY, Training, history, make_workplace, train

STEPS, CHECKPOINT = 1000, 50
RUN = [
    *["--schedule.stage1.steps", str(STEPS - 20), "--run.workers", "1-2", "--run.log_every", "1"],
    *["--run.checkpoint_every", str(CHECKPOINT), "--run.validate_every", "100000"],
    *["--model.channels", "24", "--model.decoder_blocks", "6", "--data.crop", "16"],  # time for hosts to come back
    *["--schedule.stage1.lr", "1e-6"],
    *["--schedule.stage2.lr", "1e-4"],  # so many larger steps would make of a rounding whatever they like
]

pytestmark = [pytest.mark.cluster(seconds=300), pytest.mark.skipif(bool(unavailable()), reason=unavailable())]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """A head for the driver and two hosts of one worker each."""
    with Hosts(tmp_path / "hosts", ["w1", "w2"], cpus=1) as started:
        yield started


def starts(output: str) -> list[tuple[int, int]]:
    """Step and number of workers of every start of the workers."""
    return [
        (int(step or 0), int(workers))
        for step, workers in re.findall(r"(?:after step (\d+)|starting): (\d) wo", output)
    ]


def last_step(output: str) -> int:
    return max(int(step) for step in re.findall(r"step +(\d+)/", output))


def wait_for_start(training: Training, workers: int, after: int, seconds: float = 600) -> int:
    """Step after which that many workers start, later than the first ``after`` starts, once they have done a step."""
    deadline = time.monotonic() + seconds
    while True:
        for step, count in starts(training.output)[after:]:
            if count == workers and training.step > step:
                return step
        assert training.process.poll() is None, training.output
        assert time.monotonic() < deadline, f"{workers} worker(s) did not start in {seconds} s:\n{training.output}"
        time.sleep(0.05)


def test_hosts_die_are_cut_off_and_come_back(hosts: Hosts, tmp_path: Path) -> None:
    workplace = make_workplace(tmp_path)
    whole = train(workplace, *TINY, *DATA, *RUN, "--run.workers", "2", "--run.name", "whole")
    assert whole.returncode == 0, whole.stderr
    arguments = [*TINY, *DATA, *RUN, "--run.name", "hosts"]
    begun = time.monotonic()
    with Training(workplace, *arguments, extra=hosts.driver_environment, within=hosts.on_head()) as training:
        wait_for_start(training, 2, 0)
        start = time.monotonic() - begun
        training.wait_for_step(training.step + CHECKPOINT + 10)
        before, died, at = len(starts(training.output)), time.monotonic(), training.step
        hosts.kill("w2")
        assert wait_for_start(training, 1, before) >= at - CHECKPOINT
        after_death = time.monotonic() - died
        hosts.start_ray("w2")
        resumed = wait_for_start(training, 2, before)
        alone = training.output.split(": 1 worker(s)")[-1].split(": 2 worker(s)")[0]
        assert resumed >= last_step(alone)  # nothing done twice: it saved before it grew
        training.wait_for_step(training.step + CHECKPOINT + 10)
        before, cut, at = len(starts(training.output)), time.monotonic(), training.step
        hosts.cut("w1")
        assert wait_for_start(training, 1, before) >= at - CHECKPOINT
        after_cut = time.monotonic() - cut
        hosts.heal("w1")
        assert training.finish(1200) == 0, training.output
    # Generous, and the more so the busier the machine: a start of its own takes ten seconds on a quiet one, and more
    # than half a minute beside another test. docs/training.md has what was measured.
    assert after_death < 60 + 2 * start
    assert after_cut < 90 + 2 * start
    print(f"training again {after_death:.1f} s after a host's death, {after_cut:.1f} s after its link was cut")
    expected, found = history(workplace, "whole"), history(workplace, "hosts")
    assert sorted(found) == list(range(1, STEPS + 1))  # no step missing, none twice
    assert [found[step] for step in sorted(found)] == pytest.approx(
        [expected[step] for step in sorted(found)], rel=1e-5
    )
