"""The delivery of updates to an MLflow run: in order and once, however long the server is away."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException, RestException
from numpy.typing import NDArray
from PIL import Image

from mana_dist.errors import one_line, redacted
from mana_dist.progress import duration
from mana_dist.storage.lease import LostError
from mana_dist.train.tracking.run_metrics import OF_ATTEMPTS, SCORE
from mana_dist.train.tracking.spool import Spool

BATCH = 1000  # MLflow's limit of metrics per request
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between tries while the server is away

# Errors of a server that has understood the request: trying again gives the same.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")


@dataclass(frozen=True)
class Point:
    """A metric's value at a step.

    Attributes:
        key: the metric.
        value: its value.
        timestamp: milliseconds since 1970.
        step: global steps done.
    """

    key: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True)
class Points:
    """Metrics of one event."""

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Picture:
    """A picture at a step.

    Attributes:
        key: the series that it belongs to.
        step: global steps done.
        timestamp: milliseconds since 1970.
        png: the file, base64.
    """

    key: str
    step: int
    timestamp: int
    png: str

    @classmethod
    def of(cls, key: str, step: int, pixels: NDArray[np.uint8]) -> "Picture":
        """Return a picture of (H, W, 3) pixels, now."""
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return cls(key, step, now(), base64.b64encode(stream.getvalue()).decode())


@dataclass(frozen=True)
class Ended:
    """The run's end.

    Attributes:
        status: FINISHED, FAILED or KILLED.
        timestamp: milliseconds since 1970.
    """

    status: str
    timestamp: int


Update = Points | Picture | Ended


def now() -> int:
    """Return the milliseconds since 1970."""
    return int(time.time() * 1000)


def encode(update: Update) -> bytes:
    """Return an update as JSON."""
    return json.dumps({type(update).__name__: asdict(update)}).encode()


def decode(data: bytes) -> Update:
    """Return the update that :func:`encode` made ``data`` of.

    Raises:
        ValueError: the data is something else.
    """
    try:
        ((kind, values),) = json.loads(data).items()
        if kind == "Points":
            return Points(tuple(Point(**point) for point in values["points"]))
        return Picture(**values) if kind == "Picture" else Ended(**values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an update for MLflow: {data[:80]!r}") from error


def take_up(client: MlflowClient, run_id: str) -> dict[str, Point] | None:
    """Open a run again.

    Returns:
        The last point of each metric; None if the run has been deleted.

    Raises:
        MlflowException: the server does not answer, or refuses.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if _is_refusal(error) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    if run.info.lifecycle_stage != "active":
        return None
    client.update_run(run_id, status="RUNNING")
    return _last_points(run)


def _last_points(run: Run) -> dict[str, Point]:
    """Return the last point of each metric, which a server keeps apart from the history."""
    metrics = run.data.to_proto().metrics
    return {metric.key: Point(metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics}


class Delivery:
    """A thread that sends a spool's updates to MLflow, and tries again while it does not answer.

    Args:
        client: client of the tracking server.
        run_id: the run.
        spool: the updates.
        print_line: prints a line; called once when the server goes away and once when it is back.
        logged: the last point that the run has of each metric: steps that a resumed run makes again are left out. None:
            look that up, and open the run again, as soon as the server answers.
        check: called before anything is sent; raises LostError if nothing may be sent any more.

    An update sent without a receipt may have arrived. The run's last points show that; sending it again might make the
    server search its whole history (mlflow/mlflow#24577).
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        spool: Spool,
        print_line: Callable[[str], None],
        logged: Mapping[str, Point] | None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._logged = logged
        self._check = check
        self._is_stale = False  # whether an update was sent since without a receipt
        self._client = client
        self._run_id = run_id
        self._spool = spool
        self._print_line = print_line
        self._away_since: float | None = None
        self._unsure = len(spool) > 0  # an earlier process's updates may have arrived
        threading.Thread(target=self._deliver, name="mlflow", daemon=True).start()

    @property
    def is_away(self) -> bool:
        """Return whether the last try found the server not answering."""
        return self._away_since is not None

    def _deliver(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                data = self._spool.first()
                assert data is not None
                if not self._is_sure():
                    continue
                if self._logged is None:
                    self._logged = self._take_up()
                elif self._is_stale:
                    self._logged = _last_points(self._client.get_run(self._run_id))
                self._is_stale = False
                self._send(decode(data))
            except LostError:
                return  # the run is another attempt's
            except Exception as error:  # whatever a client, a proxy or a storage library may raise
                if isinstance(error, ValueError) or _is_refusal(error):  # ValueError: a foreign file
                    self._print_line(f"warning: MLflow refuses an update, which is left out: {_line(error)}")
                    self._spool.drop_first()
                    continue
                self._unsure = self._is_stale = True
                self._note_away(error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._note_back()
            self._spool.drop_first()
            self._unsure = self._unsure and len(self._spool) > 0

    def _is_sure(self) -> bool:
        try:
            self._check()
        except OSError:  # the storage has not answered for a minute
            return False
        return True

    def _take_up(self) -> dict[str, Point]:
        logged = take_up(self._client, self._run_id)
        if logged is None:
            self._print_line(
                f"warning: MLflow run {self._run_id} has been deleted; stop, and the same command makes another"
            )
        return logged or {}

    def _is_news(self, point: Point) -> bool:
        last = (self._logged or {}).get(point.key)
        if last is None:
            return True
        if point.key in OF_ATTEMPTS:
            return (point.step, point.timestamp) != (last.step, last.timestamp)
        return point.step > last.step

    def _send(self, update: Update) -> None:
        if isinstance(update, Points):
            news = list(filter(self._is_news, update.points))
            metrics = [Metric(point.key, point.value, point.timestamp, point.step) for point in news]
            for start in range(0, len(metrics), BATCH):
                self._client.log_batch(self._run_id, metrics=metrics[start : start + BATCH])
        elif isinstance(update, Picture):
            # A picture is sent before its score.
            score = (self._logged or {}).get(SCORE)
            is_news = score is None or update.step > score.step
            if is_news and not (self._unsure and self._has_picture(update)):
                with Image.open(io.BytesIO(base64.b64decode(update.png)), formats=("PNG",)) as picture:
                    self._client.log_image(
                        self._run_id, picture, key=update.key, step=update.step, timestamp=update.timestamp
                    )
        else:
            self._client.set_terminated(self._run_id, update.status, update.timestamp)

    def _has_picture(self, picture: Picture) -> bool:
        # MLflow gives pictures random names; the small copy of a picture is written last.
        start = f"images/{picture.key}+step+{picture.step}+"
        paths = [item.path for item in self._client.list_artifacts(self._run_id, "images")]
        return any(path.startswith(start) and path.endswith(".webp") for path in paths)

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._print_line(
                f"MLflow at {redacted(self._client.tracking_uri)} does not answer ({_line(error)}); training goes on, "
                "and its updates are kept and delivered later"
            )
        self._spool.store()

    def _note_back(self) -> None:
        if self._away_since is not None:
            away = duration(time.monotonic() - self._away_since)
            self._away_since = None
            lost = f"; {self._spool.lost} found no room and are lost" if self._spool.lost else ""
            self._print_line(f"MLflow is back after {away}; {len(self._spool)} updates are on their way{lost}")


def _is_refusal(error: Any) -> bool:
    if not isinstance(error, MlflowException) or error.error_code not in _REFUSALS:
        return False
    # A proxy in front of a server that is down may send such codes too, but not in MLflow's format.
    return isinstance(error, RestException) or "API request" not in str(error)


def _line(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= 160 else text[:157] + "..."
