"""The process of one trial, which the sweep starts: ``python -m mana_dist.sweep.trial``.

It is a driver like ``mana train``: when it dies, in whatever way, Ray frees all that it holds. The task comes as a line
on stdin, which the sweep then holds open: when it closes, nobody waits for this trial any more.
"""

import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mana_dist import console, storage
from mana_dist.child_task import end_with_parent
from mana_dist.config import Config
from mana_dist.errors import UserError, one_line
from mana_dist.registry.tracking_uri import failures
from mana_dist.storage.lease import LENGTH, Fence, LostError
from mana_dist.sweep import trial_outcomes
from mana_dist.sweep.config import Judging
from mana_dist.sweep.trial_messages import Report, Task, from_line, report_line
from mana_dist.sweep.trial_outcomes import Outcome, Status
from mana_dist.sweep.trial_plan import total_steps
from mana_dist.train.schedule import stages
from mana_dist.train.tracking.events import Event, Progress, Validated

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mana_dist.evaluate.results import Evaluation, Scores

EVALUATION_FOLDER = "evaluations"


def main() -> None:
    """Do the task, and write its outcome; a user's mistake is an outcome too."""
    console.show()
    task = from_line(sys.stdin.readline())
    end_with_parent()  # without a last checkpoint: the same trial may start again at once
    threading.Thread(target=_end_with_sweep, args=[task.sweep], name="sweep", daemon=True).start()
    begun = time.monotonic()
    try:
        outcome = _do(task, begun)
    except UserError as error:
        print(f"error: {one_line(error)}", flush=True)
        outcome = Outcome(status=Status.FAILED, reason=one_line(error), seconds=time.monotonic() - begun)
    _end_if_lost(task.sweep)
    trial_outcomes.write(task.sweep.folder, task.trial.name, outcome)
    total = total_steps(task.trial.config)
    _send(Report(what=str(outcome.status), step=total if outcome.status is Status.FINISHED else 0, total=total))


def output_steps(config: Config, step: int) -> int:
    """Return how many of the first ``step`` steps could change the model's output: all but stage 2's."""
    return sum(max(0, min(step, stage.stop) - stage.start) for stage in stages(config) if not stage.trains_memory_only)


def last_stage(
    stage_at: Sequence[tuple[int, float]], rate_at: Sequence[tuple[int, float]], batch_size: int
) -> float | None:
    """Return the seconds of an optimizer step in the last stage: the median, so that a restart does not count.

    ``stage_at`` and ``rate_at`` have the stage and the samples a second of each report, with its step.
    """
    stage_of = dict(stage_at)
    last = max(stage_of.values(), default=0.0)
    seconds = [batch_size / rate for step, rate in rate_at if rate > 0 and stage_of.get(step) == last]
    return statistics.median(seconds) if seconds else None


def _do(task: Task, begun: float) -> Outcome:
    from mana_dist.sweep.seeding import seed
    from mana_dist.train import Part, run_record, train

    trial, config = task.trial, task.trial.config
    _send(Report(what="starting", total=total_steps(config), process=os.getpid()))

    def prepare() -> None:
        try:
            if seed(trial) and trial.base is not None:
                print(f"stage 1 is that of {trial.base.name}", flush=True)
        except OSError as error:
            raise UserError(f"run.storage {config.run.storage} cannot be used ({error})") from error

    model = train(config, Part(task.parent, lambda event: _report_event(config, event), prepare)).model
    record = run_record.load(config)
    run_id = record.mlflow_run_id if record else ""
    evaluation = None
    if task.judging is not None:
        _send(Report(what="evaluating", step=total_steps(config), total=total_steps(config)))
        evaluation = _evaluate(task, task.judging, model)
    step_seconds, memory = _track(task, run_id, evaluation)
    return Outcome(
        status=Status.FINISHED,
        model=model,
        mlflow_run_id=run_id,
        judging=task.judging,
        scores=_dataset_means(evaluation) if evaluation else {},
        mean=evaluation.mean(0) if evaluation else None,
        step_seconds=step_seconds,
        memory_bytes=memory,
        seconds=time.monotonic() - begun,
    )


def _dataset_means(evaluation: "Evaluation") -> dict[str, "Scores"]:
    return {name: evaluation.mean(0, evaluation.of_dataset(name)) for name in evaluation.datasets}


def _evaluate(task: Task, judging: Judging, model: str) -> "Evaluation":
    from mana_dist.evaluate import evaluate

    out = storage.join(task.sweep.folder, EVALUATION_FOLDER, task.trial.name)
    return evaluate(judging.options(task.trial.config.run, [model], out, task.trial.config.model.scale))


def _track(task: Task, run_id: str, evaluation: "Evaluation | None") -> tuple[float | None, int | None]:
    """Log the evaluation to the trial's MLflow run.

    Returns:
        Seconds of a step and bytes of memory, which earlier attempts logged there too.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    try:
        client = MlflowClient(task.tracking_uri)
        if evaluation is not None:
            now = int(time.time() * 1000)
            client.log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in _values(evaluation)])
        stage_at = _history(client, run_id, "train/stage")
        rate_at = _history(client, run_id, "train/samples_per_second")
        memory = max((value for _, value in _history(client, run_id, "train/memory_gib")), default=None)
    except failures() as error:
        raise UserError(f"mlflow.tracking_uri {task.tracking_uri} cannot be used ({error})") from error
    step_seconds = last_stage(stage_at, rate_at, task.trial.config.data.batch_size)
    return step_seconds, None if memory is None else round(memory * 2**30)


def _history(client: "MlflowClient", run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, key)]


def _values(evaluation: "Evaluation") -> list[tuple[str, float]]:
    from mana_dist.evaluate.evaluation_run import keys, values

    groups = [("test", evaluation.mean(0))]
    if len(evaluation.datasets) > 1:
        means = zip(keys(evaluation.datasets), _dataset_means(evaluation).values(), strict=True)
        groups += [(f"test/{key}", scores) for key, scores in means]
    return [(f"{group}/{name}", value) for group, scores in groups for name, value in values(scores)]


def _report_event(config: Config, event: Event) -> None:
    if not isinstance(event, Progress | Validated):
        return
    steps, total = output_steps(config, event.step), total_steps(config)
    stage = next((stage.number for stage in stages(config) if event.step <= stage.stop), 0)
    report = Report(what="training", step=event.step, total=total, output_steps=steps, stage=stage)
    if isinstance(event, Progress):
        loss = sum(event.losses) / len(event.losses)
        _send(replace(report, loss=loss, eta_seconds=event.eta_seconds))
    else:
        _send(replace(report, psnr=event.psnr))


def _send(report: Report) -> None:
    # In one piece: print writes the line's end on its own, and other threads print too.
    sys.stdout.write(f"{report_line(report)}\n")
    sys.stdout.flush()


def _end_with_sweep(sweep: Fence) -> None:
    """End this process once the sweep belongs to another attempt, which starts this trial anew."""
    while True:
        time.sleep(LENGTH / 6)
        with contextlib.suppress(OSError):  # the storage does not answer: the next check may
            _end_if_lost(sweep)


def _end_if_lost(sweep: Fence) -> None:
    try:
        sweep.check()
    except LostError as error:
        print(f"error: {one_line(error)}", flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()
