"""The folder of an evaluation's files: the numbers are written first, then the report; older files are deleted."""

from collections.abc import Iterable
from dataclasses import dataclass

from mana_dist import storage
from mana_dist.console import log
from mana_dist.errors import UserError
from mana_dist.evaluate import metrics_file, report
from mana_dist.evaluate.metrics_file import METRICS_FILE, PARTIAL_FILE
from mana_dist.evaluate.motion import TopMotion
from mana_dist.evaluate.protocol import Protocol
from mana_dist.evaluate.results import Evaluation


@dataclass(frozen=True)
class OutputFolder:
    """The folder for the files.

    Attributes:
        uri: of the folder; absolute, or remote.
    """

    uri: str

    @property
    def metrics(self) -> str:
        """URI of the numbers."""
        return storage.join(self.uri, METRICS_FILE)

    def check_free(self, protocol: Protocol, top: TopMotion | None) -> None:
        """Check that no other evaluation's files would be lost; those of the same evaluation are made anew.

        Args:
            protocol: of the evaluation to come; without its datasets' digests.
            top: which clips it reports as those with large motion.

        Raises:
            UserError: there are such files, or the folder cannot be read.
        """
        names = (METRICS_FILE, PARTIAL_FILE, *report.FILES)
        try:
            there = [name for name in names if storage.exists(storage.join(self.uri, name))]
            numbers = [storage.read_bytes(storage.join(self.uri, name)) for name in there if name in names[:2]]
        except OSError as error:
            raise UserError(f"--out: {self.uri} cannot be looked at ({error}); name a folder that can be") from error
        if there and not (numbers and all(metrics_file.is_of(data, protocol, top) for data in numbers)):
            raise UserError(
                f"--out: {self.uri} holds {there[0]} of another evaluation or of something else; name another folder, "
                "or replace it with --overwrite"
            )

    def write_metrics(self, text: str) -> None:
        """Write ``metrics.json``.

        Raises:
            UserError: it cannot be written.
        """
        try:
            storage.write_bytes(self.metrics, text.encode())
        except OSError as error:
            raise UserError(f"--out: {self.metrics} cannot be written ({error}); name a folder that can be") from error

    def write_partial(self, text: str) -> str | None:
        """Write the numbers of an evaluation that failed, and return their URI; None if that fails too."""
        uri = storage.join(self.uri, PARTIAL_FILE)
        try:
            storage.write_bytes(uri, text.encode())
        except (OSError, UserError):  # the first failure is the one to report
            return None
        return uri

    def publish(self, evaluation: Evaluation) -> list[str]:
        """Write the report, and return its files' URIs; ``metrics.json`` is there already.

        Raises:
            UserError: it cannot be written.
        """
        try:
            return report.publish(self.uri, evaluation)
        except OSError as error:
            raise UserError(
                f"--out: the report cannot be written ({error}); the numbers are in {self.metrics}"
            ) from error

    def remove_others(self, written: Iterable[str]) -> None:
        """Delete the files of an earlier evaluation: all of this command's except those ``written``.

        Those that cannot be deleted are logged.
        """
        stale = {storage.join(self.uri, name) for name in (PARTIAL_FILE, *report.FILES)} - set(written)
        for uri in sorted(stale):
            try:
                storage.delete(uri)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.info(f"{uri}: cannot be deleted, and may be an earlier evaluation's ({error})")
