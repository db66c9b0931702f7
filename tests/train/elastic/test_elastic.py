"""An elastic run on nodes that come and go."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import unavailable
from tests.train.nodes import Nodes
from tests.train.trainings import DATA, TINY, Training, history, make_workplace, train

STEPS, CHECKPOINT = 1500, 100
ELASTIC = [
    *["--schedule.stage1.steps", str(STEPS - 20), "--run.workers", "1-2", "--run.log_every", "1"],
    *["--run.checkpoint_every", str(CHECKPOINT)],
    *["--model.channels", "16", "--model.decoder_blocks", "4", "--data.crop", "16"],  # time for nodes to come
    *["--schedule.stage1.lr", "1e-6"],
    *["--schedule.stage2.lr", "1e-4"],  # so many larger steps would make of a rounding whatever they like
]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A head for the driver and one worker."""
    with Nodes(cpus=1) as started:
        yield started


def resumed_at(output: str) -> list[tuple[int, int]]:
    """Step and number of workers of every attempt but the first."""
    return [(int(step), int(workers)) for step, workers in re.findall(r"resuming after step (\d+): (\d) wo", output)]


@pytest.mark.cluster
@pytest.mark.skipif(not unavailable(), reason="tests/cluster/test_hosts.py shows it on hosts of their own")
def test_workers_go_and_come(nodes: Nodes, tmp_path: Path) -> None:
    workplace = make_workplace(tmp_path)
    whole = train(workplace, *TINY, *DATA, *ELASTIC, "--run.workers", "2", "--run.name", "whole")
    assert whole.returncode == 0, whole.stderr
    second = nodes.add(cpus=1)
    arguments = [*TINY, *DATA, *ELASTIC, "--run.name", "elastic"]
    with Training(workplace, *arguments, extra=nodes.driver_environment) as training:
        training.wait_for("starting: 2 worker(s)")
        training.wait_for_step(CHECKPOINT + 20)
        killed, at_step = time.monotonic(), training.step
        nodes.kill(second)
        training.wait_for("1 worker(s) on", seconds=120)
        back = time.monotonic() - killed
        print(f"training again {back:.1f} s after its node was killed")
        (step, workers) = resumed_at(training.output)[0]
        assert workers == 1
        assert step > at_step - CHECKPOINT
        training.wait_for_step(step + 10)
        nodes.add(cpus=1)
        training.wait_for("2 worker(s) on", count=2, seconds=120)
        alone = training.output.split(": 1 worker(s)")[1].split(": 2 worker(s)")[0]
        last = max(int(step) for step in re.findall(r"step +(\d+)/", alone))
        (step, workers) = resumed_at(training.output)[1]
        assert workers == 2
        assert step >= last  # nothing done twice: it saved before it grew
        assert training.finish() == 0, training.output
    assert back < 30
    expected, found = history(workplace, "whole"), history(workplace, "elastic")
    assert sorted(found) == list(range(1, STEPS + 1))
    assert [found[step] for step in sorted(found)] == pytest.approx(
        [expected[step] for step in sorted(found)], rel=1e-5
    )


@pytest.mark.cluster
def test_a_node_that_is_about_to_go_makes_a_checkpoint_at_once(nodes: Nodes, tmp_path: Path) -> None:
    """Like a spot instance's or an autoscaler's node, announced to Ray."""
    workplace = make_workplace(tmp_path)
    nodes.add(cpus=1)
    arguments = [*TINY, *DATA, *ELASTIC, "--run.name", "drained", "--run.checkpoint_every", "100000"]
    with Training(workplace, *arguments, extra=nodes.driver_environment) as training:
        training.wait_for("starting: 2 worker(s)")
        training.wait_for_step(10)
        at_step = training.step
        listed = json.loads(nodes.run("list", "nodes", "--address", nodes.dashboard, "--format", "json"))
        (going,) = [node["node_id"] for node in listed if not node["is_head_node"]]
        drain = ["drain-node", "--address", nodes.address, "--node-id", going, "--reason-message", "a test"]
        nodes.run(*drain, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "40")
        training.wait_for("checkpoint at step", seconds=40)
        saved = int(re.findall(r"checkpoint at step (\d+)", training.output)[0])
        assert saved >= at_step
        training.wait_for(f"resuming after step {saved}: 1 worker(s)", seconds=150)
