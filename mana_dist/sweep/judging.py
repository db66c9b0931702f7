"""What finished models are compared on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mana_dist.config import RunConfig
from mana_dist.errors import redacted


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How finished models are evaluated.

    Attributes:
        data: URIs of the ground truth, as ``mana_dist.evaluate --data`` takes them.
        frames: START:STOP of each clip.
        lpips_trunk: file of AlexNet's weights; None: torchvision's.
    """

    data: tuple[str, ...]
    frames: str = ":"
    lpips_trunk: str | None = None

    def redacted(self) -> "Judging":
        """As the ledger keeps it, without passwords."""
        return replace(self, data=tuple(map(redacted, self.data)))


def arguments(judging: Judging, run: RunConfig, methods: Sequence[str], out: str) -> list[str]:
    """Return the command line that evaluates ``methods`` as ``mana_dist.evaluate`` takes it.

    Args:
        judging: what on.
        run: whose workers and device it may take: what a training has just given back.
        methods: as on the command line.
        out: URI of the folder for the files; an earlier evaluation's there are replaced.
    """
    given = ["--data", *judging.data, "--method", *methods, "--out", out, "--overwrite", "--frames", judging.frames]
    given += ["--workers", str(run.worker_range[1]), "--device", run.device]
    return given if judging.lpips_trunk is None else [*given, "--lpips-trunk", judging.lpips_trunk]


def from_json(values: Mapping[str, Any] | None) -> Judging | None:
    """What JSON has made of one."""
    return None if values is None else Judging(**{**values, "data": tuple(values["data"])})
