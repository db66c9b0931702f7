"""What Ray Train and DeepSpeed add to a training step, and how long training waits for data.

``python -m benchmarks.train [--rounds 12] [--threads 2] [--quick] [--wait-steps 200]``. Two loops take turns in one
run, a few steps each, on the same batches in memory: a plain torch loop in this process (forward, backward, Adam; what
a script without either would do), and a Ray Train worker that does what the real one does: a DeepSpeed engine,
measuring, reports to the driver through its queue. While one computes, the other waits, so that both have the machine
to themselves and meet the same disturbances. Beside the time on the clock, the processor time of each process tells
what is the loops' own, where others use the machine too. Then a real training of the ``tiny`` preset from local shards
says what share of its time it waits for data.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.feed import make_samples
from benchmarks.timing import describe
from mana_dist import ray_runtime
from mana_dist.config import Config, DataConfig, RunConfig
from mana_dist.data.feed import Batch
from mana_dist.model import Mana, ModelConfig

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
        orders: a number of steps to do, 0 to end.
        answers: the seconds of each step.
        events: what rank 0 tells the driver.
    """

    config: Config
    threads: int
    orders: "Queue"
    answers: "Queue"
    events: "Queue"


def main() -> None:
    """Print the overhead and the data wait."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help=f"turns of {TURN} steps for each loop")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="compute threads of either loop")
    parser.add_argument("--zero-stage", type=int, choices=range(4), default=1, help="DeepSpeed's")
    parser.add_argument("--quick", action="store_true", help="the tiny preset's network instead of a larger one")
    parser.add_argument("--wait-steps", type=int, default=200, help="steps of the tiny preset; 0 leaves them out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe("cpu"))
    overhead(timed_config(options.quick, options.zero_stage), options.threads, options.rounds)
    if options.wait_steps:
        data_wait(options.wait_steps)


def timed_config(quick: bool, zero_stage: Any) -> Config:
    """A training whose step takes about a second on two cores, or the tiny preset's."""
    model = ModelConfig(channels=32, encoder_blocks=2, decoder_blocks=6, memory_slots=64)
    if not quick:
        model = replace(model, channels=64, decoder_blocks=10)
    run = RunConfig(precision="fp32", zero_stage=zero_stage, log_every=LOG_EVERY)
    return Config(model=model, data=DataConfig(batch_size=4 if quick else 2, crop=32), run=run)


def batches(config: Config) -> list[Batch]:
    """The same for both loops."""
    generator = torch.Generator().manual_seed(0)
    size, crop = config.data.batch_size, config.data.crop

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    return [
        Batch(noise(size, config.model.frames, 3, crop, crop), noise(size, 3, 4 * crop, 4 * crop))
        for _ in range(BATCHES)
    ]


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
        while count := task.orders.get():
            costs = []
            for _ in range(count):
                clock = Clock()
                loss = engine.step(prepared[step % BATCHES], 1.0)
                meter.add(loss, engine.gradient_norm)
                step += 1
                if step % LOG_EVERY == 0:
                    meter.report(step)
                costs.append(clock.stop())
            task.answers.put(costs)


def overhead(config: Config, threads: int, rounds: int) -> None:
    """Both loops by turns."""
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
        plain = PlainLoop(config)
        print(f"{ratio(plain, task, rounds)}; {threads} thread(s), ZeRO {config.run.zero_stage}, fp32", flush=True)
        task.orders.put(0)
        fitting.result(timeout=120)
    ray.shutdown()


def ratio(plain: PlainLoop, task: Task, rounds: int) -> str:
    """Both loops' steps, by the clock and by processor time."""

    def ray_turn(steps: int) -> list[Step]:
        task.orders.put(steps)
        costs: list[Step] = task.answers.get(timeout=300)
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
    wall, base_wall = ([step.wall for step in steps] for steps in (ours, theirs))
    processor, base_processor = ([step.processor for step in steps] for steps in (ours, theirs))
    return (
        f"plain torch {statistics.median(base_wall) * 1e3:.1f} ms a step, Ray Train + DeepSpeed "
        f"{statistics.median(wall) * 1e3:.1f} ms: overhead {_excess(wall, base_wall):+.1%} "
        f"(fastest steps {min(wall) / min(base_wall) - 1:+.1%}); in processor time "
        f"{_excess(processor, base_processor):+.1%}"
    )


def _excess(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs) - 1


def data_wait(steps: int) -> None:
    """A training of the tiny preset, from shards of 1280x720 frames on the local disk."""
    with tempfile.TemporaryDirectory() as folder:
        make_samples(f"{folder}/samples", "1280x720", samples=80)
        arguments = ["--config", "tiny", "--data.path", "samples", "--schedule.stage1.steps", str(steps)]
        arguments += ["--schedule.stage2.steps", "0", "--schedule.stage3.steps", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "mana_dist.train", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    waits = [float(found) for found in re.findall(r"data-wait ([\d.]+)%", done.stdout)]
    later = statistics.median(waits[1:] or waits)
    print(f"data-wait of the tiny preset: first report {waits[0]:.1f} %, median of the others {later:.1f} %")
    print(next((line for line in done.stdout.splitlines() if line.startswith("time:")), ""))


if __name__ == "__main__":
    main()
