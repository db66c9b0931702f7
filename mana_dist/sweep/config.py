"""The options of a sweep beside the configuration of its trainings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mana_dist.config import RunConfig
from mana_dist.errors import redacted
from mana_dist.evaluate.config import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The evaluation of finished models."""

    data: tuple[str, ...]  # URIs of the ground truth, as ``mana evaluate --data`` takes them
    frames: str = ":"  # START:STOP of each clip
    lpips_trunk: str | None = None  # file of AlexNet's weights; None: torchvision's

    def redacted(self) -> "Judging":
        """Return it without passwords, as files have it."""
        return replace(self, data=tuple(map(redacted, self.data)))

    def options(self, run: RunConfig, methods: Sequence[str], out: str, scale: int) -> EvaluationOptions:
        """Return the options of an evaluation of ``methods`` of a scale by the device and the workers of ``run``."""
        return EvaluationOptions(
            data=self.data,
            methods=tuple(methods),
            out=out,
            overwrite=True,
            scale=scale,
            frames=self.frames,
            lpips_trunk=self.lpips_trunk,
            device=run.device,
            workers=run.worker_range[1],
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep beside the configuration."""

    samples: int  # seeds per setting
    judging: Judging  # how models are evaluated
    at_once: int | None = None  # most trials at a time; None: as many as there is room for
    asha: bool = False  # stop trials early that validate worse than half of the others
