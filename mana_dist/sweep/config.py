"""How finished models are compared: data, frames and weights of the evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mana_dist.config import RunConfig
from mana_dist.errors import redacted
from mana_dist.evaluate.config import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The evaluation of finished models.

    Attributes:
        data: URIs of the ground truth, as ``mana evaluate --data`` takes them.
        frames: START:STOP of each clip.
        lpips_trunk: file of AlexNet's weights; None: torchvision's.
    """

    data: tuple[str, ...]
    frames: str = ":"
    lpips_trunk: str | None = None

    def redacted(self) -> "Judging":
        """Return it without passwords, as files have it."""
        return replace(self, data=tuple(map(redacted, self.data)))


def options(judging: Judging, run: RunConfig, methods: Sequence[str], out: str) -> EvaluationOptions:
    """Return the options of an evaluation of ``methods``.

    Args:
        judging: the sweep's.
        run: gives the device and the number of workers, which a training has just released.
        methods: as :class:`EvaluationOptions` has them.
        out: URI of the folder for the files; an earlier evaluation's there are replaced.
    """
    return EvaluationOptions(
        data=judging.data,
        methods=tuple(methods),
        out=out,
        overwrite=True,
        frames=judging.frames,
        lpips_trunk=judging.lpips_trunk,
        device=run.device,
        workers=run.worker_range[1],
    )


def from_json(values: Mapping[str, Any] | None) -> Judging | None:
    """Return what :func:`dataclasses.asdict` and JSON have made of one."""
    return None if values is None else Judging(**{**values, "data": tuple(values["data"])})
