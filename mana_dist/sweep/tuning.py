"""Trials on Ray Tune, which runs as many at a time as there is room for, restarts what died, and may stop some early.

Each trial is a process of its own that joins the cluster (:mod:`mana_dist.sweep.trial`). Tune's actor only runs that
process, on the sweep's own node: it takes no CPU from the training workers, which the trial's own Ray Train places.
"""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import mana_dist
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.sweep.halving import JUDGED, Halving, scheduler
from mana_dist.sweep.trial_messages import Report, Task, parse_report, to_line

LOGS_FOLDER = "logs"
RETRIES = 2
"""Number of restarts of a trial whose process died; its training resumes from its newest checkpoint."""

TRIAL = ("-m", "mana_dist.sweep.trial")
_SLIVER = 0.001  # of a node: Tune wants an actor to request something
LOG_INTERVAL = 60.0
"""Seconds between two writes of a trial's output to the sweep's storage."""


def concurrency(config: Config, free: Mapping[str, float], have: Mapping[str, float]) -> int:
    """Return how many trials the cluster has room for now, at least one.

    Args:
        config: of a trial.
        free: the cluster's resources that nobody uses.
        have: all of its resources; trials of device ``auto`` train on GPUs if there are enough.
    """
    run = config.run
    workers = run.worker_range[1]
    rooms = [free.get("CPU", 0) / (workers * run.cpus_per_worker)]
    if run.device == "cuda" or (run.device == "auto" and have.get("GPU", 0) >= run.worker_range[0]):
        rooms.append(free.get("GPU", 0) / workers)
    return max(1, math.floor(min(rooms)))


def run_trials(
    tasks: Sequence[Task], at_once: int, halving: Halving | None, watcher: "Watcher", program: Sequence[str] = TRIAL
) -> None:
    """Run trials until all have ended; each writes its outcome, unless its process died or was stopped.

    Args:
        tasks: one per trial.
        at_once: most trials at a time.
        halving: the rule by which trials are stopped early; None: none is.
        watcher: gets their reports and their ends.
        program: Python's arguments for a trial, which gets its task on stdin.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints its configuration at any verbosity
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # only validations have the rungs' metric
    import ray
    from ray import tune

    context = ray.get_runtime_context()
    address = context.gcs_address
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    sliver = {f"node:{here['NodeManagerAddress']}": _SLIVER}
    lines = [to_line(task) for task in tasks]
    logs = [storage.join(task.sweep.folder, LOGS_FOLDER, f"{task.trial.name}.txt") for task in tasks]

    configs = [task.trial.config for task in tasks]
    environment = _environment(os.environ, address)

    def trainable(chosen: dict[str, Any]) -> None:
        number = chosen["number"]
        config, judged = configs[number], set[int]()

        def hand_on(report: Report) -> None:
            rung = halving.rung(report, config) if halving else None
            tune.report(_metrics(report, rung is not None and rung not in judged))
            judged.add(rung or 0)

        _hold(program, lines[number], logs[number], environment | _job_environment(), hand_on)

    with tempfile.TemporaryDirectory(prefix="mana_dist-sweep-") as folder:
        tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([sliver])),
            param_space={"number": tune.grid_search(list(range(len(tasks))))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=at_once,
                scheduler=scheduler(halving, [config.run.seed for config in configs]),
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_callback(tasks, watcher)],
            ),
        ).fit()


class Watcher(Protocol):
    """The follower of the trials, in the sweep's process."""

    def reported(self, name: str, report: Report) -> None:
        """Take a trial's report."""

    def ended(self, name: str, error: str) -> None:
        """Take note that a trial is over; ``error`` says why its process died once too often, empty if it did not."""

    def turn(self) -> None:
        """Do what is to be done about every second; an exception ends all trials."""


def _metrics(report: Report, is_judged: bool) -> dict[str, Any]:
    """Return a report as Tune takes it; ASHA looks at it if it has ASHA's metric."""
    values = {key: value for key, value in dataclasses.asdict(report).items() if value is not None}
    return values | ({JUDGED: report.psnr} if is_judged else {})


def _hold(
    program: Sequence[str], line: str, log: str, environment: Mapping[str, str], hand_on: Callable[[Report], None]
) -> None:
    """Run a trial's process to its end, and hand on its reports; it ends when this process does."""
    process = subprocess.Popen(
        [sys.executable, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        errors="replace",
    )
    assert process.stdin and process.stdout  # noqa: PT018
    try:
        with _Log(log) as output:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            for text in process.stdout:
                report = parse_report(text)
                if report is None:
                    output.add(text)
                else:
                    hand_on(report)
            code = process.wait()
    finally:
        process.kill()
    if code:
        raise RuntimeError(f"its process ended with code {code}: {output.last}; see {log}")


class _Log:
    """A trial's output in the sweep's storage, after that of earlier attempts; a failure to write it is ignored."""

    def __init__(self, uri: str) -> None:
        self.last = "no output"
        self._uri = uri
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._written = 0
        try:
            self._lines = [storage.read_bytes(uri).decode(errors="replace")]
        except (OSError, UserError):
            self._lines = []

    def add(self, text: str) -> None:
        with self._lock:
            self._lines.append(text)
        self.last = text.strip() or self.last

    def __enter__(self) -> Self:
        self._lines.append(f"--- {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n")
        threading.Thread(target=self._keep, name="log", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._write()

    def _keep(self) -> None:
        while not self._closed.wait(LOG_INTERVAL):
            self._write()

    def _write(self) -> None:
        with self._lock:
            if len(self._lines) > self._written:
                with contextlib.suppress(OSError, UserError):
                    storage.write_bytes(self._uri, "".join(self._lines).encode())
                    self._written = len(self._lines)


def _job_environment() -> dict[str, str]:
    """Return variables that give the trials, each a job of its own, a submitted job's runtime environment."""
    import ray

    found = ray.get_runtime_context().runtime_env
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": dict(found)})} if found else {}


def _environment(own: Mapping[str, str], address: str) -> dict[str, str]:
    """Return the environment of a trial's process, which joins the cluster and finds this very package."""
    # Ray has set the threads for an actor without CPUs; MLflow is where the configuration says.
    environment = {key: value for key, value in own.items() if key not in {"OMP_NUM_THREADS", "MLFLOW_TRACKING_URI"}}
    root = os.path.dirname(os.path.dirname(os.path.abspath(mana_dist.__file__)))
    path = os.pathsep.join(part for part in (root, own.get("PYTHONPATH", "")) if part)
    return {**environment, "RAY_ADDRESS": address, "PYTHONPATH": path}


def _callback(tasks: Sequence[Task], watcher: Watcher) -> Any:
    from ray import tune

    class HandOn(tune.Callback):  # type: ignore[misc]  # Ray comes without types
        """Tune's callbacks, handed on to the watcher."""

        def __init__(self, names: Sequence[str], watcher: Watcher) -> None:
            self._names, self._watcher = names, watcher

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune saves it for a restart of the whole experiment, which we do not use

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            values = {field.name: result.get(field.name) for field in dataclasses.fields(Report)}
            if values["what"] is not None:
                self._watcher.reported(self._name(trial), Report(**values))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._watcher.ended(self._name(trial), _last_line(trial.get_error() or ""))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._watcher.ended(self._name(trial), "")

        def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
            self._watcher.turn()

        def _name(self, trial: Any) -> str:
            return self._names[trial.config["number"]]

    return HandOn([task.trial.name for task in tasks], watcher)


def _last_line(error: str) -> str:
    return next((line.strip() for line in reversed(error.splitlines()) if line.strip()), "its process was lost")
