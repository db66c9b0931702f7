"""A training's MLflow run, written by the driver alone, so that there is one whatever the number of workers.

Training never waits for MLflow: updates go to a queue, and a thread delivers them (:mod:`.delivery`). Those that cannot
be delivered lie in ``<run>/mlflow-updates/<MLflow run>/`` until the server is back, or until the next attempt of the
run. No loss is ever missing in MLflow then: checkpoints keep the losses of the steps before them, and later steps are
trained again. Gradient norms, rates and validation results of the last steps before a checkpoint are missing if they
had not arrived, and the driver is killed before it receives that checkpoint's event and stores them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal, Self

import yaml
from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from mana_dist import config as configuration
from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.published_keys import tracked
from mana_dist.registry.tracking_uri import experiment_id, failures, find_experiment, sqlite_file
from mana_dist.storage.retry import persistently
from mana_dist.train import run_record
from mana_dist.train.run_record import RunRecord
from mana_dist.train.schedule import Stage, stages
from mana_dist.train.tracking import run_metrics
from mana_dist.train.tracking.console_lines import say
from mana_dist.train.tracking.delivery import (
    Delivery,
    Ended,
    Picture,
    Point,
    Points,
    Update,
    decode,
    encode,
    now,
    take_up,
)
from mana_dist.train.tracking.events import Checkpointed, Event, Progress, Started, Validated
from mana_dist.train.tracking.run_metrics import LOSS, PICTURE, SCORE, SCORES
from mana_dist.train.tracking.run_page import Page
from mana_dist.train.tracking.spool import Spool

UPDATES_FOLDER = "mlflow-updates"


class Tracker:
    """One MLflow run. No method but :meth:`open` and :meth:`flush` waits for the server, or fails because of it.

    Args:
        client: client of the tracking server.
        run_id: an existing run.
        updates: queue of the updates.
        logged: the last point that MLflow has of each metric: steps that a resumed run makes again are not logged
            again. None: unknown until the server answers.
        print_line: prints a line.
        check: called before anything is sent to MLflow; raises LostError if nothing may be sent any more.
        stages: of the run, each of which gets a curve of its losses.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        updates: Spool,
        logged: Mapping[str, Point] | None,
        print_line: Callable[[str], None] = say,
        check: Callable[[], None] = lambda: None,
        stages: Sequence[Stage] = (),
    ) -> None:
        self.run_id = run_id
        self._print_line = print_line
        self._stages = stages
        self._spool = updates
        self._loss_step = self._score_step = 0
        for update in map(_decoded, updates.stored()):
            if isinstance(update, Points):
                self._note_logged(update)
        if logged is None:
            self._add(Points(()))  # so that the run is opened again, and flush waits for it, even if nothing is trained
        self._delivery = Delivery(client, run_id, updates, print_line, logged, check)

    @classmethod
    def open(
        cls,
        config: Config,
        tracking_uri: str,
        record: RunRecord | None,
        parent: str | None = None,
        check: Callable[[], None] = lambda: None,
        page: Page | None = None,
    ) -> Self:
        """Open the run of ``record`` where it still exists, else a new one with all parameters and the whole config.

        A new one is shown under the run ``parent``, if given, and gets ``page``. Only a new run needs a server that
        answers.

        Raises:
            UserError: the tracking server refuses, or cannot be reached for a new run; or the run's storage cannot be
                used.
        """
        try:
            client = MlflowClient(tracking_uri)
            found = _take_up(client, record) if record and record.is_tracked_in(tracking_uri) else None
            run_id, logged = found or (_new_run(client, config, parent, page), {})
        except failures() as error:
            raise _unusable(tracking_uri, error) from error
        try:
            return cls(client, run_id, _spool(config, run_id), logged, check=check, stages=stages(config))
        except OSError as error:
            raise UserError(f"run.storage {config.run.storage} cannot be used ({error}); mend it to go on") from error

    def log(self, event: Event) -> None:
        """Log what an event holds and MLflow does not have yet."""
        found = run_metrics.values(event)
        match event:
            case Started():
                self._log_steps(event)
            case Progress():
                found = found if self._log_steps(event) else {}
            case Validated():
                if event.step <= self._score_step:
                    return
                self._add(Picture.of(PICTURE, event.step, event.picture))
            case Checkpointed():
                pass
            case _:
                return
        if found:
            time = now()
            self._add(Points(tuple(Point(key, value, time, event.step) for key, value in found.items())))
        # Steps before a checkpoint are not trained again, and later checkpoints do not keep their losses.
        if (isinstance(event, Checkpointed) or self._delivery.is_away) and len(self._spool):
            self._spool.store()

    def _log_steps(self, event: Started | Progress) -> bool:
        """Log the values of single steps; returns False if all of them were logged before."""
        time = now()
        points = tuple(
            Point(key, value, time, step)
            for key, values in run_metrics.series(event, self._stages).items()
            for step, value in values.items()
            if step > self._loss_step
        )
        if points:
            self._add(Points(points))
        return bool(points)

    def _add(self, update: Update) -> None:
        if isinstance(update, Points):
            self._note_logged(update)
        self._spool.append(encode(update))

    def _note_logged(self, update: Points) -> None:
        for point in update.points:
            if point.key == LOSS:
                self._loss_step = max(self._loss_step, point.step)
            elif point.key == SCORE:
                self._score_step = max(self._score_step, point.step)

    def flush(self, timeout: float) -> bool:
        """Wait until MLflow has everything; returns False if it has not within ``timeout`` seconds."""
        return self._spool.wait_empty(timeout)

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"], timeout: float | None = None) -> None:
        """End the run.

        Args:
            status: how it ended.
            timeout: seconds to wait for MLflow: by default 5 after a kill, which leaves no more time, else 60. Updates
                that have not arrived then are kept for the next attempt.
        """
        self._add(Ended(status, now()))
        if timeout is None:
            timeout = 5.0 if status == "KILLED" else 60.0
        if not self.flush(timeout):
            self._spool.store()
            self._print_line(
                f"MLflow did not take the last {len(self._spool)} updates in time; they are in {self._spool.uri}, and "
                "the same command delivers them"
            )


def scores_at(tracking_uri: str, run_id: str, step: int) -> dict[str, float]:
    """Return the scores that a run's model had at a step, under the names that an evaluation gives them.

    Raises:
        UserError: the tracking server cannot be used.
    """
    try:
        client = MlflowClient(tracking_uri)
        points = [point for key in SCORES for point in client.get_metric_history(run_id, key) if point.step == step]
    except failures() as error:
        raise _unusable(tracking_uri, error) from error
    return run_metrics.of_model({point.key: point.value for point in points})


def check_server(tracking_uri: str, experiment: str) -> None:
    """Check that a tracking server answers, or that a database can be made, without changing anything.

    Raises:
        UserError: it does not, or cannot; or the experiment of that name has been deleted there.
    """
    path = sqlite_file(tracking_uri)
    if path is not None and not os.path.exists(path):
        storage.check_writable(os.path.dirname(path), "mlflow.tracking_uri")
        return
    try:
        find_experiment(MlflowClient(tracking_uri), experiment)
    except failures() as error:
        raise _unusable(tracking_uri, error) from error


def _unusable(tracking_uri: str, error: Exception) -> UserError:
    reason = getattr(error, "orig", None) or error  # SQLAlchemy's own message is a page with the statement
    return UserError(f"mlflow.tracking_uri {tracking_uri} cannot be used ({reason}); start it or name another")


def _spool(config: Config, run_id: str) -> Spool:
    spool = persistently(Spool, storage.join(run_record.run_folder(config), UPDATES_FOLDER, run_id))
    spool.discard(lambda data: isinstance(_decoded(data), Ended))  # the run goes on
    return spool


def _decoded(data: bytes) -> Update | None:
    """Return None if ``data`` is no update; the delivery reports it and leaves it out."""
    try:
        return decode(data)
    except ValueError:
        return None


def _take_up(client: MlflowClient, record: RunRecord) -> tuple[str, dict[str, Point] | None] | None:
    """Return the run's id and the last point of each metric, if the server answers; None if the run is deleted."""
    try:
        logged = take_up(client, record.mlflow_run_id)
    except MlflowException as error:
        if error.get_http_status_code() < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return record.mlflow_run_id, None  # no answer
    return None if logged is None else (record.mlflow_run_id, logged)


def _new_run(client: MlflowClient, config: Config, parent: str | None, page: Page | None) -> str:
    tags = {**(page.tags if page else {}), **({"mlflow.parentRunId": parent} if parent else {})}
    run = client.create_run(experiment_id(client, config.mlflow.experiment), tags=tags, run_name=config.run.name)
    run_id: str = run.info.run_id
    values = tracked(configuration.to_mapping(config))
    params = [Param(key, str(value)) for key, value in configuration.flatten(values).items()]
    client.log_batch(run_id, params=params)
    if page:
        client.log_inputs(run_id, datasets=page.inputs)
    client.log_text(run_id, yaml.safe_dump(values, sort_keys=False), "config.yaml")
    return run_id
