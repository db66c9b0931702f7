"""What Ray Train and DeepSpeed add to a training step, and how long training waits for data.

Two loops take turns in one run, a few steps each, on the same batches in memory: a plain torch loop in this process
(forward, backward, Adam; what a script without either would do), and a Ray Train worker that does what the real one
does: a DeepSpeed engine, measuring, reports to the driver through its queue. While one computes, the other waits, so
that both have the machine to themselves and meet the same disturbances. Beside the time on the clock, the processor
time of each process tells what is the loops' own, where others use the machine too. Then a real training of the
``tiny`` preset from local shards says what share of its time it waits for data.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.feed import make_samples
from benchmarks.model import noise_batch
from benchmarks.networks import NETWORKS, TOY
from benchmarks.report import Row
from mana_dist import ray_runtime
from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.data.feed import Batch
from mana_dist.model import Mana

if TYPE_CHECKING:
    from ray.util.queue import Queue

BATCHES = 8  # kept in memory, used in turn
TURN = 4  # steps before the other has its turn
LOG_EVERY = 20


@dataclass(frozen=True)
class Task:
    """What the Ray Train worker is handed.

    Attributes:
        config: the training that is timed; the worker makes the same batches from its seed.
        threads: compute threads.
        counts: numbers of steps to do, 0 to end.
        costs: what each step took.
        events: what rank 0 tells the driver.
    """

    config: Config
    threads: int
    counts: "Queue"
    costs: "Queue"
    events: "Queue"


def step_rows(small: bool) -> Iterator[Row]:
    """A step of plain torch, and of a Ray Train worker with DeepSpeed."""
    # A network whose step takes about 0.15 s on two cores, or one as small as it can be.
    model = TOY if small else replace(NETWORKS["small"], encoder_blocks=2, decoder_blocks=10)
    run = RunConfig(precision="fp32", zero_stage=1, log_every=LOG_EVERY)
    config = Config(model=model, data=DataConfig(batch_size=2, crop=8 if small else 32), run=run)
    plain, ray = side_by_side(config, torch.get_num_threads(), rounds=2 if small else 8)
    for what, cost in {"clock": lambda step: step.wall, "processor time": lambda step: step.processor}.items():
        theirs, ours = (statistics.median(map(cost, steps)) for steps in (plain, ray))
        yield Row(f"a step of plain torch, {what}", theirs * 1e3, "ms", 1.0, "plain torch")
        yield Row(f"a step of Ray Train and DeepSpeed, {what}", ours * 1e3, "ms", ours / theirs, "plain torch's time")


def batches(config: Config) -> list[Batch]:
    """The same for both loops."""
    batch = noise_batch(config.model, BATCHES * config.data.batch_size, config.data.crop)
    return [Batch(*both) for both in zip(*(part.chunk(BATCHES) for part in batch), strict=True)]


@dataclass(frozen=True)
class Step:
    """One step's cost.

    Attributes:
        wall: seconds on the clock.
        processor: seconds of processor time that the process took, all its threads together.
    """

    wall: float
    processor: float


class Clock:
    """Times steps."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def stop(self) -> Step:
        """What has passed."""
        return Step(time.perf_counter() - self._wall, time.process_time() - self._processor)


class PlainLoop:
    """Torch alone."""

    def __init__(self, config: Config) -> None:
        from mana_dist.model.mana import initial_weights
        from mana_dist.train.objective import StageObjective
        from mana_dist.train.schedule import ADAM_BETAS, stages

        stage = stages(config)[0]
        model = Mana(config.model)
        model.load_state_dict(initial_weights(config.model, config.run.seed))
        self._objective = StageObjective(model, stage)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(trained, lr=stage.lr, betas=ADAM_BETAS)
        self._batches = batches(config)
        self._step = 0

    def turn(self, steps: int) -> list[Step]:
        """The cost of each of ``steps`` steps."""
        costs = []
        for _ in range(steps):
            clock = Clock()
            batch = self._batches[self._step % BATCHES]
            self._optimizer.zero_grad()
            loss = self._objective(batch.lr, batch.hr)
            loss.backward()
            self._optimizer.step()
            self._step += 1
            if self._step % LOG_EVERY == 0:
                loss.item()
            costs.append(clock.stop())
        return costs


class MemoryFeed:
    """Stands in for the feed: the batches are there."""

    waited = 0.0


def ray_loop(task: Task) -> None:
    """The Ray Train worker: as :mod:`mana_dist.train.worker` trains, but with batches from memory, when told to."""
    from mana_dist.model.mana import initial_weights
    from mana_dist.train.engine import StageEngine
    from mana_dist.train.meter import Meter
    from mana_dist.train.planning.costs import device_peak
    from mana_dist.train.schedule import stages

    torch.set_num_threads(task.threads)
    config, device = task.config, torch.device("cpu")
    stage, prepared = stages(config)[0], batches(task.config)
    weights = initial_weights(config.model, config.run.seed)
    feed: Any = MemoryFeed()
    with StageEngine(config.model, config.run, stage, weights, {}, 0, device) as engine:
        meter = Meter(config, stage, feed, task.events.put, device, device_peak(device, config.run.precision))
        step = 0
        while count := task.counts.get():
            costs = []
            for _ in range(count):
                clock = Clock()
                loss = engine.step(prepared[step % BATCHES], config.data.batch_size)
                meter.add(loss, engine.gradient_norm)
                step += 1
                if step % LOG_EVERY == 0:
                    meter.report(step)
                costs.append(clock.stop())
            task.costs.put(costs)


def side_by_side(config: Config, threads: int, rounds: int) -> tuple[list[Step], list[Step]]:
    """Return the steps of the plain loop and of the Ray Train worker."""
    ray_runtime.start_ray(cpus=threads)
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    queues = [Queue(actor_options={"num_cpus": 0}) for _ in range(3)]
    task = Task(config, threads, *queues)
    with tempfile.TemporaryDirectory() as storage, ThreadPoolExecutor(1) as executor:
        trainer = TorchTrainer(
            lambda: ray_loop(task),
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": threads}),
            run_config=ray.train.RunConfig(
                name="benchmark",
                storage_path=storage,
                worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads), "DS_ACCELERATOR": "cpu"}},
            ),
        )
        fitting = executor.submit(trainer.fit)
        steps = turns(PlainLoop(config), task, rounds)
        task.counts.put(0)
        fitting.result(timeout=120)
    ray.shutdown()
    return steps


def turns(plain: PlainLoop, task: Task, rounds: int) -> tuple[list[Step], list[Step]]:
    """Let both loops take turns."""

    def ray_turn(steps: int) -> list[Step]:
        task.counts.put(steps)
        costs: list[Step] = task.costs.get(timeout=300)
        return costs

    ray_turn(2)  # caches, threads
    plain.turn(2)
    ours: list[Step] = []
    theirs: list[Step] = []
    for number in range(rounds):
        # Who goes first changes, so that neither always follows the other.
        if number % 2:
            theirs += plain.turn(TURN)
            ours += ray_turn(TURN)
        else:
            ours += ray_turn(TURN)
            theirs += plain.turn(TURN)
    return theirs, ours


def wait_rows(small: bool) -> Iterator[Row]:
    """A training of the tiny preset, from shards of 1280x720 frames on the local disk."""
    steps = 20 if small else 60
    with tempfile.TemporaryDirectory() as folder:
        make_samples(f"{folder}/samples", "448x256" if small else "1280x720", samples=16 if small else 80)
        arguments = ["--config", "tiny", "--data.path", "samples", "--schedule.stage1.steps", str(steps)]
        arguments += ["--schedule.stage2.steps", "0", "--schedule.stage3.steps", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "mana_dist.train", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    waits = [float(found) for found in re.findall(r"data-wait ([\d.]+)%", done.stdout)]
    yield Row("first report", waits[0], "% of the time")
    if waits[1:]:
        yield Row("median of the later reports", statistics.median(waits[1:]), "% of the time")
