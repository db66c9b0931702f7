"""Whether the folder of a run is the same one on every node: a folder of the same name is soon made anywhere."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from mana_dist import storage
from mana_dist.config import Config
from mana_dist.errors import UserError
from mana_dist.train.run_record import run_folder

_PATIENCE = 10.0  # seconds for a network file system to show what another node has written
_PREFIX = ".driver-"


@contextlib.contextmanager
def token(config: Config) -> Iterator[str | None]:
    """A file in the run's folder that whoever shares it sees; None where the URI alone says so.

    Its name is new each time: a network file system may show an old file's content for a while.
    """
    if storage.is_remote(config.run.storage):
        yield None
        return
    folder = Path(storage.resolve(run_folder(config)))
    for left in folder.glob(f"{_PREFIX}*"):  # by a driver that was killed
        left.unlink(missing_ok=True)
    file = folder / f"{_PREFIX}{uuid.uuid4().hex}"
    storage.write_bytes(str(file), b"")
    try:
        yield str(file)
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def sees(uri: str, patience: float = _PATIENCE) -> bool:
    """Whether this process sees the token ``uri``, if not at once then soon."""
    deadline = time.monotonic() + patience
    while not Path(uri).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def check_all(seen: Sequence[bool], name: str) -> None:
    """Check that all workers have seen the token.

    Args:
        seen: whether they have, by rank.
        name: ``run.storage``.

    Raises:
        UserError: some have not.
    """
    if not all(seen):
        raise UserError(
            f"run.storage {name} is not the same place on all nodes ({seen.count(False)} of {len(seen)} workers do not "
            "see what the driver writes there); name a shared folder or s3://BUCKET/PATH"
        )
