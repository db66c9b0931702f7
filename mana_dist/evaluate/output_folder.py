"""The folder that an evaluation writes: the numbers first, then what shows them, and nothing of an earlier one."""

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
    """Where the files go.

    Attributes:
        uri: of the folder; absolute, or remote.
    """

    uri: str

    @property
    def metrics(self) -> str:
        """URI of the numbers."""
        return storage.join(self.uri, METRICS_FILE)

    def check_free(self, protocol: Protocol, top: TopMotion | None) -> None:
        """Check that nothing is lost: no files but those of the same evaluation, which gives them again.

        Args:
            protocol: of the evaluation to come; without its datasets' digests.
            top: what it asks of the clips with large motion.

        Raises:
            UserError: there are others, or they cannot be looked at.
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
        """Write the numbers of an evaluation that failed; their URI, or None: that fails too."""
        uri = storage.join(self.uri, PARTIAL_FILE)
        try:
            storage.write_bytes(uri, text.encode())
        except (OSError, UserError):  # the first failure is the one to tell
            return None
        return uri

    def publish(self, evaluation: Evaluation) -> list[str]:
        """Write the report, whose files' URIs these are; ``metrics.json`` is there already.

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
        """Delete this command's files but for those ``written``: an earlier evaluation left them.

        One that cannot be deleted is told on the console.
        """
        stale = {storage.join(self.uri, name) for name in (PARTIAL_FILE, *report.FILES)} - set(written)
        for uri in sorted(stale):
            try:
                storage.delete(uri)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.info(f"{uri}: cannot be deleted, and may be an earlier evaluation's ({error})")
