"""Trials on Ray Tune: it starts as many at a time as there is room for, tries again what died, and may stop some early.

Each trial is a process of its own that joins the cluster (:mod:`mana_dist.sweep.trial`). Tune's actor only holds it,
on the sweep's own node: it takes no CPU from the training workers, which the trial's own Ray Train places.
"""

import dataclasses
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mana_dist
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.sweep.task import Report, Task, parse_report, to_line

if TYPE_CHECKING:
    from mana_dist.sweep.board import Board

LOGS_FOLDER = "logs"
RETRIES = 2
"""How often a trial is started again whose process died; its training goes on from its newest checkpoint."""

TRIAL = ("-m", "mana_dist.sweep.trial")
_SLIVER = 0.001  # of a node: Tune wants an actor to ask for something


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (ASHA) by validation PSNR.

    Attributes:
        grace: output steps that every trial may make (see :class:`Report`).
        factor: the best of so many trials goes on at each rung.
    """

    grace: int
    factor: int = 2


@dataclass(frozen=True)
class Ended:
    """How Tune saw a trial end.

    Attributes:
        name: the trial's.
        error: what it died of, one line; empty if it did not.
    """

    name: str
    error: str


def concurrency(config: Config, have: Mapping[str, float], most: int | None) -> int:
    """Trials at a time: as many as the cluster has room for, at least one, at most ``most``."""
    run = config.run
    workers = run.worker_range[1]
    rooms = [have.get("CPU", 0) / (workers * run.cpus_per_worker)]
    gpus = have.get("GPU", 0)
    if run.device == "cuda" or (run.device == "auto" and gpus >= run.worker_range[0]):
        rooms.append(gpus / workers)
    room = max(1, math.floor(min(rooms)))
    return room if most is None else min(room, most)


def run_trials(
    tasks: Sequence[Task], at_once: int, halving: Halving | None, board: "Board", program: Sequence[str] = TRIAL
) -> list[Ended]:
    """Run trials until all have ended; what came of them is in the ledger, unless their process died or was stopped.

    Args:
        tasks: one per trial.
        at_once: most trials at a time.
        halving: how bad trials are stopped early; None: they are not.
        board: is told how far they are.
        program: of a trial, as Python takes it; it gets its task on stdin.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output tells of its configuration whatever is asked
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # only validations have the rungs' metric
    import ray
    from ray import tune

    context = ray.get_runtime_context()
    address = context.gcs_address
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    sliver = {f"node:{here['NodeManagerAddress']}": _SLIVER}
    lines = [to_line(task) for task in tasks]
    logs = [storage.join(task.sweep_folder, LOGS_FOLDER, f"{task.trial.name}.txt") for task in tasks]

    def trainable(chosen: dict[str, Any]) -> None:
        number = chosen["number"]
        _hold(program, lines[number], logs[number], address, lambda report: tune.report(_known(report)))

    with tempfile.TemporaryDirectory(prefix="mana_dist-sweep-") as folder:
        results = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([sliver])),
            param_space={"number": tune.grid_search(list(range(len(tasks))))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=at_once,
                scheduler=_scheduler(halving),
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_callback(tasks, board)],
            ),
        ).fit()
    return [
        Ended(tasks[result.config["number"]].trial.name, _last_line(result.error) if result.error else "")
        for result in results
    ]


def _known(report: Report) -> dict[str, Any]:
    """As Tune takes it; ASHA looks at a report if the metric is in it."""
    return {key: value for key, value in dataclasses.asdict(report).items() if value is not None}


def _hold(program: Sequence[str], line: str, log: str, address: str, tell: Callable[[Report], None]) -> None:
    """Run a trial's process to its end, and hand on its reports; it ends with this one."""
    process = subprocess.Popen(
        [sys.executable, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(os.environ, address),
        text=True,
        errors="replace",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told: list[str] = []
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        for text in process.stdout:
            report = parse_report(text)
            if report is None:
                told.append(text)
            else:
                tell(report)
        code = process.wait()
    finally:
        process.kill()
        storage.write_bytes(log, "".join(told).encode())
    if code:
        reason = next((text.strip() for text in reversed(told) if text.strip()), "no output")
        raise RuntimeError(f"its process ended with code {code}: {reason}; see {log}")


def _environment(own: Mapping[str, str], address: str) -> dict[str, str]:
    """Of a trial's process: it joins the cluster, and finds this very package."""
    # Ray has set the threads for an actor without CPUs; MLflow is where the configuration says.
    environment = {key: value for key, value in own.items() if key not in {"OMP_NUM_THREADS", "MLFLOW_TRACKING_URI"}}
    root = os.path.dirname(os.path.dirname(os.path.abspath(mana_dist.__file__)))
    path = os.pathsep.join(part for part in (root, own.get("PYTHONPATH", "")) if part)
    return {**environment, "RAY_ADDRESS": address, "PYTHONPATH": path}


def _scheduler(halving: Halving | None) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if halving is None:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="output_steps",
        metric="psnr",
        mode="max",
        grace_period=halving.grace,
        reduction_factor=halving.factor,
        max_t=10**9,  # nothing is stopped for being done
    )


def _callback(tasks: Sequence[Task], board: "Board") -> Any:
    from ray import tune

    def name(trial: Any) -> str:
        return tasks[trial.config["number"]].trial.name

    class Watch(tune.Callback):  # type: ignore[misc]  # Ray comes without types
        """Shows on the board what Tune tells."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            values = {field.name: result.get(field.name) for field in dataclasses.fields(Report)}
            if values["what"] is not None:
                board.report(name(trial), Report(**values))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            board.ended(name(trial))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            board.ended(name(trial))

        def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
            board.refresh()

    return Watch()


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
