"""Updates on their way to an MLflow run: in order, each once, however long the server is away."""

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
from mana_dist.train.tracking.spool import Spool

LOSS, PICTURE, SCORE = "train/loss", "validation", "val/psnr"
WORKERS, SAVED, WAITED = "train/workers", "train/checkpoint_seconds", "train/checkpoint_wait_seconds"
_OF_ATTEMPTS = (WORKERS, SAVED, WAITED)  # each attempt has its own for a step; the rest belongs to the step

BATCH = 1000  # MLflow's limit of metrics per request
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between tries while the server is away

# The server has understood, and will say the same again.
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
        """From (H, W, 3) pixels, now."""
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
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def encode(update: Update) -> bytes:
    """As JSON."""
    return json.dumps({type(update).__name__: asdict(update)}).encode()


def decode(data: bytes) -> Update:
    """What :func:`encode` was given.

    Raises:
        ValueError: something else.
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
        The last point that it has of each metric; None if somebody has deleted it.

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
    """The last point of each metric, by which a server keeps them: it looks through no history for that."""
    metrics = run.data.to_proto().metrics
    return {metric.key: Point(metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics}


class Delivery:
    """A thread that brings a spool's updates to MLflow, and waits and tries again while it does not answer.

    Args:
        client: of the tracking server.
        run_id: the run.
        spool: the updates.
        tell: prints a line; called once when the server goes and once when it is back.
        logged: the last point that the run has of each metric: what a resumed run does again is left out. None: find
            that out, and open the run again, as soon as the server answers.
        check: called before anything is sent; raises LostError if nothing may be sent any more.

    What was sent without a receipt may have arrived. It is not sent again to find out: a server that is given points
    which it has may search its whole history for them (mlflow/mlflow#24577). Its last points say as much.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        spool: Spool,
        tell: Callable[[str], None],
        logged: Mapping[str, Point] | None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._logged = logged
        self._check = check
        self._is_stale = False  # something was sent since, and no receipt came
        self._client = client
        self._run_id = run_id
        self._spool = spool
        self._tell = tell
        self._away_since: float | None = None
        self._unsure = len(spool) > 0  # what a process before left may have arrived
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
                if isinstance(error, ValueError) or _is_refusal(error):  # ValueError: a file that is not ours
                    self._tell(f"warning: MLflow refuses an update, which is left out: {_line(error)}")
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
        except OSError:  # the storage does not answer, and has been asked for a minute
            return False
        return True

    def _take_up(self) -> dict[str, Point]:
        logged = take_up(self._client, self._run_id)
        if logged is None:
            self._tell(f"warning: MLflow run {self._run_id} has been deleted; stop, and the same command makes another")
        return logged or {}

    def _last(self, key: str) -> Point | None:
        assert self._logged is not None
        return self._logged.get(key)

    def _is_news(self, point: Point) -> bool:
        last = self._last(point.key)
        if last is None:
            return True
        if point.key in _OF_ATTEMPTS:
            return (point.step, point.timestamp) != (last.step, last.timestamp)
        return point.step > last.step

    def _send(self, update: Update) -> None:
        if isinstance(update, Points):
            news = list(filter(self._is_news, update.points))
            metrics = [Metric(point.key, point.value, point.timestamp, point.step) for point in news]
            for start in range(0, len(metrics), BATCH):
                self._client.log_batch(self._run_id, metrics=metrics[start : start + BATCH])
        elif isinstance(update, Picture):
            # A picture goes before its score.
            score = self._last(SCORE)
            is_news = score is None or update.step > score.step
            if is_news and not (self._unsure and self._has_picture(update)):
                with Image.open(io.BytesIO(base64.b64decode(update.png)), formats=("PNG",)) as picture:
                    self._client.log_image(
                        self._run_id, picture, key=update.key, step=update.step, timestamp=update.timestamp
                    )
        else:
            self._client.set_terminated(self._run_id, update.status, update.timestamp)

    def _has_picture(self, picture: Picture) -> bool:
        # MLflow tells pictures apart by a random name; of each, the small copy is written last.
        start = f"images/{picture.key}+step+{picture.step}+"
        paths = [item.path for item in self._client.list_artifacts(self._run_id, "images")]
        return any(path.startswith(start) and path.endswith(".webp") for path in paths)

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._tell(
                f"MLflow at {redacted(self._client.tracking_uri)} does not answer ({_line(error)}); training goes on, "
                "and what it has to tell is kept and delivered later"
            )
        self._spool.store()

    def _note_back(self) -> None:
        if self._away_since is not None:
            away = duration(time.monotonic() - self._away_since)
            self._away_since = None
            lost = f"; {self._spool.lost} found no room and are lost" if self._spool.lost else ""
            self._tell(f"MLflow is back after {away}; {len(self._spool)} updates are on their way{lost}")


def _is_refusal(error: Any) -> bool:
    if not isinstance(error, MlflowException) or error.error_code not in _REFUSALS:
        return False
    # A proxy in front of a server that is down may say such things too, but not in MLflow's words.
    return isinstance(error, RestException) or "API request" not in str(error)


def _line(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= 160 else text[:157] + "..."
