"""The URI of the MLflow server or database, and the handling of MLflow's client."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mana_dist.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
_UNENCODED = re.compile(r"(?i)https?://.*[/?#].*@")


def resolve_tracking_uri(value: str | None = None) -> str:
    """Return ``value``, else ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` (sqlite) in the working folder.

    A sqlite file's path comes back absolute, since workers run in other folders.

    Raises:
        UserError: a server's URI with a password that holds ``/``, ``?`` or ``#`` as they are: MLflow would take part
            of it for the server's name or a path, and show it in its errors.
    """
    uri = value or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if _UNENCODED.match(uri):
        raise UserError(
            "mlflow.tracking_uri: write / ? # @ as %2F %3F %23 %40 in its user and password, or "
            "give them in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    path = sqlite_file(uri)
    return uri if path is None else sqlite_uri(path) + "".join(uri.partition("?")[1:])


def sqlite_uri(path: str) -> str:
    """Return the URI by which SQLAlchemy finds the database file ``path``, absolute, whatever its name.

    Raises:
        UserError: the installed SQLAlchemy has no way to say it.
    """
    if "%" not in path and "?" not in path:
        return SQLITE + path
    # The slashes too: MLflow makes the folder of the name as it is written.
    uri = SQLITE + quote(path, safe="")
    if sqlite_file(uri) != path:
        raise UserError(f"mlflow.tracking_uri: no database can lie at {path}, for the % or ? in it; name another")
    return uri


def sqlite_file(tracking_uri: str) -> str | None:
    """Return the absolute path of the database file of a sqlite tracking URI; ``None`` for any other URI."""
    if not tracking_uri.startswith(SQLITE):
        return None
    path = tracking_uri.removeprefix(SQLITE)
    if "%" in path or "?" in path:
        from sqlalchemy.engine import make_url  # the reader of these URIs: its versions differ in what they decode

        path = make_url(tracking_uri).database or ""
    return os.path.abspath(path)


def artifact_location(tracking_uri: str) -> str | None:
    """Return the URI of ``mlruns`` beside a sqlite database, where ``mlflow ui`` looks; ``None`` for a server."""
    path = sqlite_file(tracking_uri)
    return None if path is None else Path(path).with_name("mlruns").as_uri()


def find_experiment(client: "MlflowClient", name: str) -> str | None:
    """Return the id of the experiment of that name; None if there is none.

    Raises:
        UserError: there was one, and it has been deleted: MLflow takes neither runs into it nor another of its name.
        MlflowException: the server refuses or cannot be reached.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"MLflow's experiment {name} has been deleted; give another name, or bring it back with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    return str(experiment.experiment_id)


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Return the id of the experiment of that name, made if there is none; errors as :func:`find_experiment`."""
    found = find_experiment(client, name)
    return found or str(client.create_experiment(name, artifact_location=artifact_location(client.tracking_uri)))


def failures() -> tuple[type[Exception], ...]:
    """Return what MLflow's client raises where its server or database cannot be used.

    SQLAlchemy's errors come through as they are, for one where another process holds a sqlite database; ImportError
    says that a database's driver is not installed.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, ImportError, OSError


def quiet_mlflow() -> None:
    """Import MLflow without its telemetry, progress bars and news: the console is for our lines.

    Call it before anything else imports MLflow in the process.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It would print a run's address at its end, with the user and password of the tracking URI.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # MLflow's own 7 retries take four minutes to tell that there is no server.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds for each; 120 otherwise
    import mlflow  # noqa: F401  # sets its loggers' levels when imported

    # Alembic would tell of each migration of a new sqlite database.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def single_tries() -> Iterator[None]:
    """While the context is open, MLflow's client makes each request once: whoever opens it repeats what fails itself.

    The client repeats a request whose answer was lost without asking whether it has been served.
    """
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def tracking(tracking_uri: str) -> Iterator[None]:
    """Let MLflow's fluent calls go to ``tracking_uri`` in this context, and where they went before after it."""
    quiet_mlflow()
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")  # MLflow mirrors its own setting there
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
